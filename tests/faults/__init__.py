"""Tests of what fails: kills, outages, full disks, damaged or planted files."""
