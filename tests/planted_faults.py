"""Small faults that the tests must notice: `python -m tests.planted_faults` plants each in a copy and runs its tests.

A row of `FAULTS` is a file of the package, the text before, the text after, and the test that must fail.
"""

# ruff: noqa: E501, T201 - one fault is one line, and a command prints.
from __future__ import annotations

import os
import queue
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
NOTES = "tests/faults/test_lost_notes.py"
LEDGER = "tests/unit/test_ledger.py"
SPOOLS = "tests/faults/test_spools_of_earlier_versions.py::test_carried_over_and_then_killed"
OUTAGES = "tests/faults/test_store_outages.py"
REFUSED = "tests/faults/test_refused_files.py"
CALLS = "tests/faults/test_faults_at_each_store_call.py::test_a_fault_at_each_call[memory-{0}-some]"
BESIDE = "tests/faults/test_faults_at_each_store_call.py::test_a_fault_at_each_call[memory side by side-{0}-some]"
OURS = "tests/faults/test_faults_at_each_store_call.py::test_a_fault_at_each_call[memory with our ids-{0}-some]"
LIMITS = f"{NOTES}::test_the_limits_of_mlflow"
HALF = f"{NOTES}::test_a_write_in_progress"
DISK = f"{NOTES}::test_what_is_brought_to_the_disk"
ZEROED = f"{NOTES}::test_progress_that_is_zeroed"
END = f"{NOTES}::test_the_note_of_an_end_that_is_lost"
KILLED = f"{NOTES}::test_killed_just_after_a_call"
FLUSH = f"{NOTES}::test_flush_while_a_file_is_deferred"
JOURNAL = "tests/unit/test_journal.py"
DAMAGED_JOURNAL = "tests/unit/test_damaged_journals.py"
RUNS = "tests/unit/test_run_map.py"
HELD = "tests/integration/test_held_runs.py"
SINK = "tests/integration/test_database_sink.py"
SLICES = "tests/notebooks/test_reproduce_slices.py"
ROOTS = "tests/notebooks/test_reproduce_roots.py"
UNWRITTEN = "tests/notebooks/test_reproduce_unwritten.py"
CELL_CODE = "tests/notebooks/test_reproduce_code.py"
ROWS = f"{SINK}::test_both_sinks_leave_equal_rows"
TABLES = "tests/faults/test_database_conditions.py"
SERVER = "tests/integration/test_server_plugin.py"
SENT = "tests/integration/test_hostile_change_sets.py"
CHANGES = "tests/unit/test_changes.py"
WHAT_CHANGED = "tests/integration/test_what_changed.py"
LEFT_OUT = "tests/integration/test_changes_report_trace_faults.py"
REPORT = "tests/unit/test_report.py"
HEART = "tests/integration/test_heartbeat.py"
WAITS = "tests/faults/test_waiting_for_delivery.py"
SECRETS = "tests/unit/test_secrets.py"
AT_SERVER = "tests/integration/test_server_artifacts.py"
SIDE = "tests/unit/test_concurrent_requests.py"
FOLLOWER = "tests/unit/test_follower.py"
DAMAGED = "tests/faults/test_lost_notes.py::test_a_ledger"
WATCH = "tests/integration/test_watch.py"
WATCHED = "tests/unit/test_watched_runs.py"
TRACES = "tests/integration/test_traces.py"
FILES_OF_RUNS = "tests/integration/test_files_of_runs.py::test_files_of_runs"
LANES = "tests/unit/test_lanes.py"
LANES_AT_STORE = "tests/integration/test_recorded_lanes.py"
HIDDEN = "tests/notebooks/test_hidden_state.py::test_a_value_of_tracked"

FAULTS: list[tuple[str, str, str, str]] = [
    ("delivery/runs/_creation.py", "(in_doubt and id_ not in self._unsent) or id_ in self._doubted", "False", KILLED),
    ("delivery/journals/_stream.py", "else self.progress.intent", "else self.progress.position", KILLED),
    ("delivery/journals/_stream.py", "unknown = not self.progress.count and bool(self.runs)", "unknown = False", ZEROED),
    ("delivery/state/_last_seen.py", "            self._alive_at = now\n", "            pass\n", "tests/integration/test_resumed_runs.py::test_a_killed_run_ends_at_the_last_sign_of_life"),
    ("delivery/journals/_stream.py", "        self._reader.position = start\n", "", CALLS.format("Unavailable-before")),
    ("delivery/runs/_ending.py", 'if status != "RUNNING":', "if False:", END),
    ("delivery/runs/_ending.py", '            pending.add_tag("trackdsl.lost_events", f', "            str(f", CALLS.format("Unavailable-before")),
    ("delivery/runs/_ending.py", 'pending.add_tag("trackdsl.ended", why)', "pass", CALLS.format("Unavailable-before")),
    ("delivery/runs/_ending.py", 'self._writer.end(sink, run, "KILLED", time)', 'self._writer.end(sink, run, "FINISHED", time)', CALLS.format("Unavailable-before")),
    ("delivery/files/_artifacts.py", "            self._spent.append(event.snapshot)\n            return {path", "            remove_snapshot(self._directory, event.snapshot)\n            return {path", f"{OUTAGES}::test_what_was_refused_is_reported_whenever_delivery_dies"),
    ("delivery/files/_artifacts.py", "if any(waiting.run_id == run.run_id and _overlap(waiting.path, _key(event)) for waiting in self._waiting):", "if False:", f"{OUTAGES}::test_an_older_artifact_never_replaces_a_newer"),
    ("delivery/files/_artifacts.py", "            bisect.insort(self._waiting, waiting, key=recorded_order)\n", "            pass\n", FLUSH),
    ("delivery/files/_tables.py", "            sink.commit()  # Nothing but the log remembers the rows.\n", "", OURS.format("Crash-before").replace("-some", "-every")),
    ("delivery/state/_run_map.py", "self._write([WITHOUT_PARENT.change(id_, parent)])", "self._write_entry(WITHOUT_PARENT, id_)", "tests/integration/test_late_parents.py::test_delivery_is_killed_before_it_has_asked_again"),
    ("delivery/state/_ledger.py", "if size > self._end:", "if False:", f"{LEDGER}::test_a_short_commit_after_a_long_torn_one"),
    ("delivery/state/_ledger.py", "            self._append(frame(before.changes), True)\n", "            pass\n", SPOOLS),
    ("delivery/state/_ledger.py", "                os.fsync(descriptor)\n", "                pass\n", f"{LEDGER}::test_what_is_brought_to_the_disk"),
    ("delivery/state/_ledger.py", "self._unsettled or before_progress", "False", f"{LEDGER}::test_what_is_brought_to_the_disk"),
    ("delivery/state/_ledger.py", "for changes in self._unloaded.values():", "for changes in ():", f"{LEDGER}::test_a_long_file_becomes_short"),
    ("delivery/state/_ledger.py", "self._end = self._longest = 0", "self._end = 0", f"{LEDGER}::test_a_file_that_is_removed"),
    ("store_format/ledger.py", "if zlib.crc32(payload) != check:", "if False:", f"{LEDGER}::test_a_torn_end"),
    ("store_format/ledger.py", " or _commit_behind(content, offset)", "", f"{LEDGER}::test_damage_in_the_middle"),
    ("delivery/journals/_stream.py", "if self.ledger.damaged:", "if False:", f"{DAMAGED}_that_is_damaged"),
    ("delivery/journals/_progress.py", "lost = int(first > 1)", "lost = 0", "tests/faults/test_lost_notes.py::test_a_damaged_ledger_of_a_long_journal"),
    ("delivery/state/_held_events.py", "sorted(self._waiting.items(), key=lambda item: item[0])", "self._waiting.items()", f"{DAMAGED}_that_is_damaged"),
    ("delivery/state/_run_map.py", "                undo()\n", "                pass\n", OURS.format("Unavailable-before")),
    ("delivery/state/_run_map.py", "        self._ended.remove(id_)\n", "        pass\n", f"{RUNS}::test_all_runs_stay_known"),
    ("delivery/state/_run_map.py", "not run.continued and run.run_id == id_.hex() and", "not run.continued and", f"{RUNS}::test_all_runs_stay_known"),
    ("delivery/journals/_stream.py", "        self.runs.shrink()\n", "", f"{OUTAGES}::test_late_events_of_runs_that_have_ended"),
    ("delivery/runs/_writer.py", 'pending.add_tag("trackdsl.lost_events", str(event.lost))', "pass", f"{NOTES}::test_lost_events_of_a_run_that_ends"),
    ("delivery/runs/_writer.py", "        self.end(sink, run, event.status, event.time)\n", "", CALLS.format("Unavailable-before")),
    ("delivery/batches/_timestamp_dedup.py", "time = latest + 1", "time = latest", CALLS.format("Unavailable-before")),
    ("delivery/runs/_git_tags.py", "self._untagged = runs.ours()", "self._untagged: list[bytes] = []", f"{OUTAGES}::test_the_answer_of_git_survives_a_restart"),
    ("delivery/process/_durability.py", "        sync(path)", "        pass", DISK),
    ("delivery/process/_durability.py", '"origin", NAME, "progress"', '"origin", "progress"', DISK),
    ("delivery/process/_durability.py", "*unsealed[:-1]])", "*unsealed])", "tests/faults/test_deleted_journals.py::test_every_segment_is_brought_to_the_disk"),
    ("store_format/progress.py", "self._mapped().flush()", "pass", DISK),
    ("store_format/limits.py", "MAX_PARAM = 6000", "MAX_PARAM = 5999", LIMITS),
    ("store_format/limits.py", "MAX_PARAM = 6000", "MAX_PARAM = 6001", LIMITS),
    ("store_format/limits.py", "MAX_TAG = 8000", "MAX_TAG = 7999", LIMITS),
    ("store_format/limits.py", "MAX_TAG = 8000", "MAX_TAG = 8001", LIMITS),
    ("store_format/limits.py", "MAX_KEY = 250", "MAX_KEY = 249", LIMITS),
    ("store_format/limits.py", "if len(escaped) <= MAX_KEY:", "if len(escaped) < MAX_KEY:", LIMITS),
    ("delivery/batches/_compose.py", "if len(text) > _limits.MAX_PARAM:", "if len(text) >= _limits.MAX_PARAM:", LIMITS),
    ("delivery/batches/_compose.py", "default=0) <= _limits.MAX_PARAM\n", "default=0) <= _limits.MAX_PARAM + 1\n", LIMITS),
    ("delivery/program/_waiting.py", "progress.position >= self.end and not progress.deferred", "progress.position >= self.end", FLUSH),
    ("journal/_reader.py", "            if not sealed or _all_zero(data, offset, len(data)):", "            if _all_zero(data, offset, len(data)):", HALF),
    ("journal/_files.py", "            os.fsync(file.fileno())", "            pass", DISK),
    ("journal/_files.py", "        os.fsync(descriptor)", "        pass", DISK),
    ("journal/_reader.py", "offset + fmt.FRAME.size) and not sealed)", "offset + fmt.FRAME.size))", f"{DAMAGED_JOURNAL}::test_zeros_between_events_are_counted"),
    ("journal/_reader.py", "if _is_frame(view, offset, salt):", "if False:", f"{DAMAGED_JOURNAL}::test_an_event_that_is_written_while_it_is_read"),
    ("journal/_format.py", "        if crc(payload, salt) != check:\n            break\n", "", f"{NOTES}::test_more_events_than_are_decoded_at_once"),
    ("journal/_reader.py", "header.schema > events.SCHEMA:", "False:", "tests/unit/test_golden_journals.py::test_a_newer_schema_is_left_alone"),
    ("journal/_reader.py", "header.number == number:\n                    self._salted", "True:\n                    self._salted", f"{DAMAGED_JOURNAL}::test_what_is_missing_of_a_journal_is_reported"),
    ("journal/_reader.py", "if not sealed or not rest:", "if True:", f"{DAMAGED_JOURNAL}::test_a_cut_last_segment_is_reported"),
    ("journal/_writer.py", "fmt.LOST.pack_into(self._map, fmt.LOST_OFFSET, self.lost)", "pass", f"{NOTES}::test_lost_events_of_a_program_that_is_killed"),
    ("journal/_writer.py", "        segment.map.write(data)\n        self._switch(segment, segment.map.write)\n", "        self._switch(segment, segment.map.write)\n        segment.map.write(data)\n", f"{JOURNAL}::test_threads_that_fill_a_new_segment_at_once"),
    ("delivery/journals/_interpreter.py", "if event.run in self._held.runs and not", "if False and not", f"{HELD}::test_later_events_of_a_blocked_run_wait_behind_earlier_ones"),
    ("delivery/journals/_interpreter.py", "if end in self._held.kept:", "if False:", f"{HELD}::test_events_of_a_stretch_that_fails_are_held_once"),
    ("delivery/state/_held_events.py", "        self.kept.update(held.end for held in held_events)\n", "", f"{HELD}::test_events_of_a_stretch_that_fails_are_held_once"),
    ("delivery/journals/_interpreter.py", "        if self._dropped.covers(event):\n            self.ending.drop(sink, event)\n            return\n", "", f"{HELD}::test_what_a_dropped_run_records_later_is_forgotten"),
    ("delivery/runs/_deferral.py", "if id_ in self._unremembered:", "if False:", f"{NOTES}::test_quickly_collected_points_of_a_blocked_run"),
    ("delivery/runs/_held_delivery.py", "            sink.commit()  # Once delivered, these events are not held any more.\n", "", "tests/integration/test_runs_of_several_processes.py::test_what_was_kept_aside_is_written_before_it_is_forgotten"),
    ("delivery/runs/_opening.py", "        rest.batch.tags.update(self.pending_tags)\n", "", "tests/faults/test_unusual_spool_files.py::test_damage_before_the_first_run"),
    ("delivery/runs/_opening.py", "self._creation.remaining(run, self._tags(event, self._git.known()))", "_compose.Pending()", f"{OUTAGES}::test_killed_before_the_rest_of_a_new_run"),
    ("delivery/runs/_early_creation.py", "if self._creation.may_exist(event.run, in_doubt):", "if False:", BESIDE.format("Crash-after")),
    ("delivery/runs/_creation.py", "            self._unsent.discard(new.id_)\n            (self._doubted.discard if", "            (self._doubted.discard if True or", BESIDE.format("Unavailable-after")),
    ("delivery/journals/_interpreter.py", "self._shared.points.delivered(self._name, up_to=end)", "self._shared.points.delivered(self._name)", "tests/integration/test_equal_points.py::test_points_of_a_stretch_that_failed_and_is_read_in_parts"),
    ("delivery/rest/_concurrency_limit.py", "max(1, self._limit // 2)", "MOST", f"{SIDE}::test_a_server_that_fails_gets_fewer_requests_at_once"),
    ("delivery/rest/_concurrency_limit.py", "not error.busy or tries", "True or tries", f"{SIDE}::test_what_a_server_was_too_busy_for_is_sent_again"),
    ("delivery/runs/_ending.py", "            if id_ in deferral.held.runs or (id_ in deferral.blocked and not trying):\n                continue\n", "", f"{HELD}::test_an_end_that_is_held_is_an_end"),
    ("delivery/runs/_ending.py", "with contextlib.suppress(RunBlocked):", "with contextlib.nullcontext():", f"{HELD}::test_a_dropped_run_of_a_deleted_experiment"),
    ("delivery/state/_blocked.py", "if count < _ENOUGH_FAILURES:", "if False:", f"{HELD}::test_one_failure_sets_nothing_aside"),
    ("delivery/state/_blocked.py", "return str(error) if sink.answers() else None", "return str(error)", f"{HELD}::test_a_store_that_answers_nothing_sets_nothing_aside"),
    ("delivery/files/_tables.py", "        self._flush_logs()\n        mine =", "        mine =", "tests/unit/test_tables.py::test_rows_are_on_the_disk_before_an_upload"),
    ("delivery/files/_artifacts.py", "bisect.insort(self._waiting, waiting, key=recorded_order)", "self._waiting.append(waiting)", f"{OUTAGES}::test_an_older_artifact_is_read_again"),
    ("delivery/journals/_stream.py", "if self._reader.position >= self._doubt_until:", "if True:", f"{OUTAGES}::test_an_older_artifact_is_read_again"),
    ("delivery/database/_upserts.py", ") > ({0}.step", ") < ({0}.step", f"{SINK}::test_the_latest_point_is_by_step_time_and_value"),
    ("delivery/database/_writer.py", "step > held[3]", "step < held[3]", f"{SINK}::test_the_latest_point_is_by_step_time_and_value"),
    ("delivery/database/_writer.py", "!= [(self._revision,)]:", "== []:", f"{TABLES}::test_tables_that_are_upgraded_while_delivery_runs"),
    ("delivery/database/_writer.py", "elif not is_encoding_of(before, value):", "elif False:", f"{SINK}::test_a_parameter_keeps_its_first_value"),
    ("delivery/database/_writer.py", "(key, 0.0, at, step, true, run_id)", "(key, 0.0, at, step, false, run_id)", ROWS),
    ("delivery/database/_writer.py", "_LARGEST if value > 0 else -_LARGEST", "_LARGEST", ROWS),
    ("delivery/database/_writer.py", "SET status = 'RUNNING' WHERE", "SET status = 'RUNNING', end_time = NULL WHERE", f"{SINK}::test_a_deleted_run_is_not_reopened"),
    ("delivery/database/_writer.py", "if change.end is not None and run_id not in fresh:", "if False:", OURS.format("Crash-before").replace("memory with our ids", "database")),
    ("delivery/database/_writer.py", "batch.tags.get(RUN_NAME_TAG) or name", "batch.tags.get(RUN_NAME_TAG, name)", f"{SINK}::test_an_empty_name_is_none"),
    ("delivery/database/_writer.py", "if within is not None and any(", "if False and any(", f"{SENT}::test_a_run_that_comes_into_a_foreign_experiment_meanwhile_is_not_written"),
    ("delivery/database/_writer.py", "            return  # Another process has created it since.\n", "            pass\n", f"{SINK}::test_an_experiment_that_another_process_creates_meanwhile"),
    ("delivery/database/_upserts.py", "DO UPDATE SET value = excluded.value", "DO NOTHING", f"{SINK}::test_an_empty_name_is_none"),
    ("delivery/database/_reader.py", "math.nan if is_nan else value", "value", f"{SINK}::test_what_is_collected_is_there_before_it_is_read"),
    ("delivery/database/_reader.py", 'GONE if not rows or rows[0][1] == "deleted" else', "GONE if not rows else", f"{SINK}::test_what_is_collected_is_there_before_it_is_read"),
    ("delivery/database/_collector.py", "        if run_id in self._changes:\n            self.flush()\n", "        pass\n", f"{SINK}::test_what_is_collected_is_there_before_it_is_read"),
    ("delivery/database/_collector.py", "if isinstance(error, Unavailable) and not isinstance(error, Denied):", "if isinstance(error, Unavailable):", f"{SERVER}::test_who_may_not_write_waits_alone"),
    ("delivery/database/_wire.py", "MOST_BYTES = 24 << 20", "MOST_BYTES = 24 << 21", f"{SENT}::test_the_limit_of_a_change_set"),
    ("delivery/database/_wire.py", "if not decompressor.eof or decompressor.unused_data:", "if decompressor.unused_data:", f"{SENT}::test_hostile_content_is_refused"),
    ("delivery/database/_wire.py", "if len(plain) > MOST_BYTES:", "if False:", f"{SENT}::test_a_zip_bomb_is_not_unpacked"),
    ("_server/_deadlines.py", "                self._change.notify()\n", "                pass\n", "tests/unit/test_deadlines.py::test_each_ends_at_its_own_deadline"),
    ("delivery/rest/_run_requests.py", '_UNUSUAL.get(value, "NaN")', "None", f"{SERVER}::test_rows_through_the_server_are_those_of_the_database_sink"),
    ("delivery/rest/_run_requests.py", "except (UnicodeEncodeError, OverflowError) as error:", "except ZeroDivisionError as error:", f"{SERVER}::test_a_text_that_has_no_encoding_is_refused"),
    ("delivery/rest/_artifacts.py", "{quote(join(root, checked_path(path)))}", "{join(root, checked_path(path))}", f"{AT_SERVER}::test_names_arrive_as_they_are"),
    ("delivery/rest/_artifacts.py", " and len(waiting) <= most:", ":", f"{AT_SERVER}::test_a_list_without_end_ends"),
    ("delivery/rest/_artifacts.py", "file.stat().st_size < largest", "True", f"{AT_SERVER}::test_large_files_are_left_to_mlflows_client"),
    ("delivery/database/_server_tables.py", "        self.settle()\n        return self._requests\n", "        return self._requests\n", f"{SERVER}::test_nothing_is_read_before_what_was_begun_is_written"),
    ("delivery/database/_server_tables.py", "        self.settle()\n        self._send(changes)\n", "        self._send(changes)\n", f"{SERVER}::test_nothing_is_read_before_what_was_begun_is_written"),
    ("delivery/database/_server_tables.py", "        except (Refused, Denied) as error:  # Not of what is done now.", "        except ZeroDivisionError as error:", f"{SERVER}::test_nothing_is_read_before_what_was_begun_is_written"),
    ("delivery/database/_collector.py", "lambda _: self._tables.settle()", "lambda _: None", f"{SERVER}::test_a_stretch_is_not_delivered_before_its_last_part"),
    ("delivery/database/_collector.py", "            self._tables.forget()\n", "            pass\n", f"{SERVER}::test_a_stretch_is_not_delivered_before_its_last_part"),
    ("store_format/limits.py", "_ALLOWED.fullmatch(key) is not None and not", "not", f"{SENT}::test_hostile_content_is_refused"),
    ("delivery/database/_wire.py", "if not is_key(key):", "if False:", f"{SENT}::test_hostile_content_is_refused"),
    ("delivery/database/_wire.py", "if contradicts or ", "if ", f"{SERVER}::test_what_is_sent_arrives"),
    ("delivery/database/_wire.py", "change.inputs[inputs:], change.end)", "change.inputs[inputs:])", f"{SERVER}::test_a_large_change_set_is_sent_in_parts"),
    ("delivery/store/_local_artifacts.py", "folder / checked_path(path) if path else folder", "folder / path if path else folder", f"{SINK}::test_artifacts_stay_in_their_folder"),
    ("delivery/store/_local_artifacts.py", "_inside(folder, folder / checked_path(path))", "_inside(folder, folder / path)", f"{SINK}::test_artifacts_stay_in_their_folder"),
    ("delivery/server/plugin.py", "if forbidden is not None:", "if False:", f"{SENT}::test_a_run_of_a_foreign_experiment_is_not_written"),
    ("delivery/server/plugin.py", "if request.mimetype != CONTENT_TYPE:", "if False:", f"{SENT}::test_web_pages_of_others_cannot_send_change_sets"),
    ("delivery/server/plugin.py", "if existing.get(run_id, change.new.experiment_id) != change.new.experiment_id:", "if False:", f"{SENT}::test_a_run_cannot_be_taken_over_by_creating_it"),
    ("delivery/server/_permission.py", "    questions += [(_WRITE, {\"run_id\": each}) for each in existing]\n", "", f"{SENT}::test_a_run_of_a_foreign_experiment_is_not_written"),
    ("delivery/server/_backend.py", "            if writer.outdated:\n                self._close()\n", "            pass\n", f"{SENT}::test_a_server_whose_tables_are_upgraded_says_so"),
    ("delivery/database/_server_tables.py", "                self._outdated = True\n", "", f"{SERVER}::test_answers_mean_what_they_mean_to_the_client"),
    ("store_format/heartbeat_monitor.py", "return 0.0 < before < self._cpu", "return False", f"{HEART}::test_a_process_that_computes_lives_without_a_beat"),
    ("store_format/heartbeat.py", "if zlib.crc32(payload) != check:", "if False:", f"{HEART}::test_a_damaged_heartbeat_counts_as_none"),
    ("store_format/heartbeat_monitor.py", "if heard.steady and heard.beat.rounds - begun <= _MOST_ROUNDS:", "if True:", f"{HEART}::test_a_process_is_at_work_as_long_as_a_round_takes"),
    ("delivery/program/_waiting.py", "if now - self._monitor.worked > timing().no_sign:", "if False:", f"{WAITS}::test_a_wait_lasts_as_long_as_there_are_signs"),
    ("delivery/program/_waiting.py", "progressed, self._seen = state != self._seen, state", "progressed, self._seen = False, state", f"{WAITS}::test_a_wait_lasts_as_long_as_there_are_signs"),
    ("delivery/program/_waiting.py", "bool(progress.deferred) and progress.position >= self.end\n\n\nclass", "bool(progress.deferred)\n\n\nclass", f"{WAITS}::test_what_a_wait_expects"),
    ("delivery/program/_waiting.py", "(failed or not again)", "True", f"{WAITS}::test_what_a_wait_expects"),
    ("delivery/program/_waiting.py", "failed = progress.failures > self.failures", "failed = progress.failures >= self.failures", f"{WAITS}::test_what_a_wait_expects"),
    ("_recording/emit.py", "remember(value) if is_secret(name, value) else mask_text(text)", "text", f"{SECRETS}::test_a_masked_value_is_masked_wherever_it_comes_again"),
    ("_recording/artifacts.py", "_write(to, mask_text(str(text)))", "_write(to, str(text))", f"{SECRETS}::test_literals_in_written_text"),
    ("_runs/exceptions.py", "mask_prose(_message(error)[: 4 * _MAX_MESSAGE])", "(_message(error)[: 4 * _MAX_MESSAGE])", f"{SECRETS}::test_a_masked_value_is_masked_wherever_it_comes_again"),
    ("_runs/exceptions.py", "            return mask_prose(text)\n", "            return text\n", f"{SECRETS}::test_a_masked_value_is_masked_wherever_it_comes_again"),
    ("_recording/params.py", "mask_name(str(storable(name_of_key(key))))", "str(storable(name_of_key(key)))", f"{SECRETS}::test_names_of_metrics_are_masked"),
    ("journal/_follower.py", "                self._skip_to(end)\n", "                pass\n", f"{FOLLOWER}::test_a_follower_without_time_reads_the_end"),
    ("journal/_follower.py", "max(fmt.HEADER_SIZE, end.offset - _TAIL)", "end.offset", f"{FOLLOWER}::test_a_follower_without_time_reads_the_end"),
    ("journal/_structure.py", "stop + _PATTERN", "stop", "tests/unit/test_journal_structure.py::test_skimming_finds_the_tree_and_nothing_else"),
    ("delivery/journals/_stream.py", "            self._open_events.keep(delivered, self.runs.still_open())\n", "", f"{WATCH}::test_the_beginning_of_a_long_program"),
    ("cli/watching/_runs.py", "            self._drop(oldest)\n", "            pass\n", f"{WATCHED}::test_what_has_ended_is_folded_and_bounded"),
    ("cli/watching/_runs.py", "if all(child is not one for one in above(run)):", "if True:", f"{WATCHED}::test_any_events_make_a_sound_picture"),
    ("cli/watching/_runs.py", "            self.before_drop(run)\n", "", f"{WATCHED}::test_lines_lose_no_run"),
    ("cli/watching/_texts.py", 'return printable((run.path if cut_off else run.name) or "unnamed")', 'return (run.path if cut_off else run.name) or "unnamed"', f"{WATCHED}::test_any_events_make_a_sound_picture"),
    ("cli/watching/_journal.py", "return bool(self._runs.open_in(self.name)) and may_still_run(self.origin)", "return False", f"{WATCH}::test_a_journal_that_is_deleted"),
    ("cli/watching/_journal.py", "            self._pass_over(give_up)\n", "            pass\n", f"{WATCH}::test_more_points_than_can_be_read"),
    ("_api/loop_notes.py", " and self._run.is_open", "", "tests/integration/test_loop_notes.py::test_a_loop_that_ends_after_its_run"),
    ("_runs/run_html.py", "return markup(text if", "return str(text if", "tests/unit/test_card.py::test_a_run_as_html"),
    ("notebook/provenance.py", "            step.tracked.append(execution)\n", "", HIDDEN),
    ("notebook/effects.py", "in {*_READING, TRACKED})", "in _READING)", "tests/notebooks/test_export.py::test_the_program_gives_the_same"),
    ("_api/steps.py", ' and find_spec("ipywidgets") is not None:', ":", "tests/notebooks/test_cards.py::test_a_bar_needs_no_widgets"),
    ("notebook/provenance.py", "            execution.inputs = step.inputs_of(execution)\n", "", HIDDEN),
    ("notebook/provenance.py", "touched = state.objects.shared_with(effects.changed) - wrote", "touched = set(effects.changed) - wrote", "tests/notebooks/test_reproduce_script.py::test_programs_of_notebooks"),
    ("notebook/roots.py", "        if is_session and scope.ends_run", "        if False and scope.ends_run", f"{ROOTS}::test_the_notebook_of_a_session"),
    ("notebook/program.py", "        if opened.by != BY_MAGIC:\n", "        if False:\n", f"{ROOTS}::test_the_notebook_of_a_session"),
    ("notebook/cells.py", "            if alone:\n                call_before_end(", "            if False:\n                call_before_end(", f"{ROOTS}::test_a_failed_cell_has_no_program"),
    ("notebook/kinds.py", "    if is_implicit(what):\n", "    if False:\n", UNWRITTEN),
    ("notebook/kinds.py", "    if package in _NEW_BY_OPERATORS:\n        return False\n", "", UNWRITTEN),
    ("notebook/state.py", " and (name not in _BUILTIN or name in self.writers)", " and name not in _BUILTIN", UNWRITTEN),
    ("notebook/provenance.py", "for one in keeping for other in given", "for one in () for other in given", UNWRITTEN),
    ("query/_inert_frame.py", "_sliced(self) -> Any:\n        return Series", "_sliced(self) -> Any:\n        return pd.Series", "tests/integration/test_inert_displays.py::test_columns_and_rows"),
    ("notebook/state.py", "        self.modules.update(names.modules)\n", "", f"{SLICES}::test_settings_of_modules"),
    ("notebook/names.py", 'not in ("needed", "literals", "logs")', 'not in ("needed", "literals", "logs", "defined")', f"{SLICES}::test_names_of_a_cell_and_its_magic"),
    ("notebook/effects.py", '    "head", "describe",', '    "get", "head", "describe",', f"{SLICES}::test_objects_that_reading_changes"),
    ("notebook/lines.py", "    if not tree.body:\n", "    if False:\n", f"{CELL_CODE}::test_a_faulty_cell_costs_itself"),
    ("notebook/translation.py", "    if not any(isinstance(part, ast.FormattedValue) for part in parts):\n", "    if True:\n", f"{CELL_CODE}::test_cells_with_magics"),
    ("notebook/frontend.py", "shell.displayhook.prompt_count", "shell.execution_count", "tests/notebooks/test_reproduce_script.py::test_the_execution_count"),
    ("notebook/live_card.py", "max(len(known), self._expected, 1)", "max(len(known), 1)", "tests/notebooks/test_cards.py::test_there_is_room_for_the_metrics_of_the_code"),
    ("notebook/outputs.py", "self._restore.append(follow_flushes(stream, self._begins))", "pass", "tests/notebooks/test_cards.py::test_a_card_is_above_what_its_cell_shows"),
    ("notebook/outputs.py", ".startswith(CARD_ID)", ".startswith('?')", "tests/notebooks/test_export.py"),
    ("notebook/cells.py", "if not followed or frontend.has_widgets():", "if not followed:", "tests/notebooks/test_cards.py::test_a_card_is_not_inside_a_widget"),
    ("notebook/cells.py", "if not followed or frontend.has_widgets():", "if frontend.has_widgets():", "tests/notebooks/test_cards.py::test_a_card_is_above_what_its_cell_shows"),
    ("notebook/live_card.py", "            self._publisher.publish(", "            __import__('IPython').get_ipython().display_pub.publish(", "tests/notebooks/test_cards.py::test_a_card_is_not_captured"),
    ("notebook/live_card.py", "if os.getpid() != self._process:", "if False:", "tests/notebooks/test_cards.py::test_a_child_process_shows_no_card"),
    ("journal/_follower.py", "self._read_memory() or ", "", "tests/unit/test_follower.py::test_a_follower_opens_no_file"),
    ("notebook/live_card.py", "[_BEHIND] if follower and follower.left_out else []", "[]", "tests/notebooks/test_cards.py::test_a_card_reads_no_more_than_it_has_time_for"),
    ("store_format/changes/source.py", "return mask_text(text[:_LONGEST_TEXT])", "return text[:_LONGEST_TEXT]", f"{CHANGES}::test_finds_what_a_function_uses_of_its_project"),
    ("store_format/changes/source.py", "if definition.module.edited > began:", "if False:", f"{CHANGES}::test_source_that_may_not_be_what_ran_is_left_out"),
    ("store_format/changes/descriptions.py", "return _ENTITY.sub(lambda match: _ENTITIES[match[0].lower()], escaped)", "return escaped", f"{CHANGES}::test_no_name_or_value_is_markup"),
    ("store_format/changes/compare.py", "if name not in below[path] or name in functions[path]", "if path is not None", f"{CHANGES}::test_a_change_inside_a_nested_stage_is_not_blamed_on_the_stage_around_it"),
    ("delivery/summaries/_program_contents.py", "return self.newest <= began <= self.time", "return began <= self.time", "tests/unit/test_recorded_source.py::test_what_a_later_program_ran_is_not_taken_for_what_an_earlier_one_ran"),
    ("delivery/summaries/_change_notes.py", "unknown_before=unknown", "unknown_before=()", "tests/integration/test_what_is_not_known.py::test_source_that_is_not_known_of_the_run_before"),
    ("query/_recorded_runs.py", "if stored is None or theirs is None:", "if stored is None and theirs is None:", "tests/integration/test_what_is_not_known.py::test_datasets_that_are_not_known_of_one_run_are_not_compared"),
    ("delivery/summaries/_previous_run.py", "        return one != other\n", "        return True\n", "tests/integration/test_last_comparable_run.py::test_two_blocks_of_one_program_are_not_alike"),
    ("delivery/summaries/_scripts.py", "return scripts[0] == scripts[1] and ", "return ", "tests/integration/test_last_comparable_run.py::test_scripts_of_one_name_in_two_folders"),
    ("delivery/summaries/_previous_run.py", " or run.tags.get(SUPERSEDED_TAG)", "", f"{WHAT_CHANGED}::test_which_run_is_the_last_one_like_it"),
    ("delivery/batches/_single_writes.py", "                    continue\n                if plain != text:\n", "                    break\n                if plain != text:\n", "tests/integration/test_fallback_encoding.py::test_why_something_is_left_out_is_said_in_ascii"),
    ("delivery/runs/_shared_roots.py", "missing = _missing(rest, tags, sink.tags(run.run_id))", "missing = rest", "tests/integration/test_shared_roots.py::test_tags_that_the_store_does_not_take_as_they_are"),
    ("delivery/runs/_shared_roots.py", "if rest.batch.tags or rest.texts:", "if rest.batch.tags:", "tests/integration/test_shared_roots.py::test_tags_that_the_store_does_not_take_as_they_are"),
    ("delivery/runs/_held_delivery.py", "if id_ not in deferral.dropped:", "if False:", "tests/integration/test_late_parents.py::test_a_parent_that_comes_while_the_experiment_is_deleted"),
    ("delivery/runs/_held_delivery.py", "if id_ not in deferral.dropped:", "if True:", "tests/integration/test_late_parents.py::test_a_parent_that_comes_while_the_experiment_is_deleted"),
    ("delivery/summaries/_left_out.py", "    except Refused as error:\n", "    except LookupError as error:\n", f"{LEFT_OUT}::test_what_the_store_refuses"),
    ("delivery/summaries/_left_out.py", "        _leave_out(sink, run_id, name, mask_text(format_error(error)), traceback=True)\n", "        pass\n", f"{LEFT_OUT}::test_a_fault_that_would_occur_again"),
    ("cli/_sync.py", "        _deliver_pages(spool, only)\n", "        pass\n", f"{WHAT_CHANGED}::test_sync_after_delivery_was_killed_when_all_was_delivered"),
    ("delivery/summaries/_change_notes.py", "    program = [] if call_of(tree[0].tags).get(\"function\") else [PROGRAM]\n", "    program: list[Site] = []\n", f"{WHAT_CHANGED}::test_a_program_without_decorated_functions"),
    ("store_format/changes/descriptions.py", "        if len(text) <= MAX_TAG:\n            break\n", "        break\n", f"{CHANGES}::test_a_description_fits_into_a_tag"),
    ("store_format/report/page.py", "    if _size(page) <= LARGEST:\n        return page\n", "    return page\n", f"{REPORT}::test_what_is_too_large_is_shortened"),
    ("store_format/report/tables.py", "        if self.length > _LONGEST_ROW:", "        if False:", "tests/unit/test_report_files.py::test_hostile_files_cost_little"),
    ("store_format/report/shown_files.py", "        return None if _SCRIPT.search(page) else", "        return", f"{REPORT}::test_pages_of_others_are_shown_without_any_permission"),
    ("delivery/summaries/_change_notes.py", "if theirs is None or key_of(theirs) in ours:", "if True:", f"{WHAT_CHANGED}::test_a_note_of_the_user_is_kept"),
    ("delivery/summaries/_change_notes.py", " if self._sink.status(run_id) != GONE}", "}", f"{WHAT_CHANGED}::test_source_of_a_run_that_was_deleted_is_kept_again"),
    ("delivery/journals/_stream.py", "        self._shared.what_changed.save()\n", "", f"{WHAT_CHANGED}::test_a_fault_at_each_call[before-Crash]"),
    ("delivery/summaries/_what_changed.py", "            self._leave(waiting)\n", "            self._remove(root)\n", f"{TRACES}::test_a_thread_leaves_the_trace_to_a_process"),
    ("delivery/mlflow_client/_traces.py", "if _COUNTED.search(name) else name", "if False else name", f"{TRACES}::test_a_copy_is_not_counted"),
    ("cli/_export.py", "found.map(_inert)", "found", "tests/integration/test_pages_and_export.py::test_no_cell_is_a_formula"),
    ("delivery/store/_local_artifacts.py", "return real if real.is_relative_to(os.path.realpath(folder)) else None", "return real", FILES_OF_RUNS),
    ("query/_database.py", "(model and self._tables.rows(of_model, (run_id, model)))", "False", FILES_OF_RUNS),
    ("query/_filters.py", "not _WORDS.isdisjoint(key.upper().split(\".\"))", "False", "tests/unit/test_filters.py::test_words_of_sql_as_names"),
    ("_core/current_lane.py", "_here.lane = _here.thread = None  # The thread that forked", "pass  # The thread that forked", f"{LANES_AT_STORE}::test_the_thread_that_forks_is_the_main_thread_of_the_child"),
    ("_core/current_lane.py", "mask_name(plain if len(plain) <= LONGEST_NAME else f", "mask_name(plain if True else f", "tests/unit/test_current_lane.py::test_any_name_can_be_recorded"),
    ("_core/current_lane.py", "return mask_name(", "return (", "tests/unit/test_current_lane.py::test_secrets_in_names_are_masked"),
    ("_core/current_lane.py", "name if type(name) is str else str.__str__(name)", "name", "tests/unit/test_current_lane.py::test_classes_of_others_do_no_harm"),
    ("_core/current_lane.py", '(lane[0], lane[1], shown, id(task))', '("", 0, shown, id(task))', "tests/unit/test_current_lane.py::test_each_task_has_its_name_and_its_id"),
    ("_core/current_lane.py", 'and _is_of_kernel(task) else name', "and False else name", "tests/unit/test_current_lane.py::test_cells_of_notebooks_are_in_no_task"),
    ("_runs/lifecycle.py", '"", False, lane_here(),', '"", False, None,', f"{LANES_AT_STORE}::test_runs_have_their_threads_and_tasks"),
    ("journal/_structure.py", r"(?:[\x90-\x9f]|\xdc..)", r"[\x90-\x9f]", "tests/unit/test_journal_structure.py"),
    ("store_format/report/timeline.py", "track, depth = tracks.setdefault(lane,", "track, depth = tracks.setdefault(Lane(lane.process),", f"{LANES}::test_the_stages_of_a_thread_are_in_one_row"),
    ("store_format/report/timeline.py", "begin, until = times.get(child.run_id, (start, start))", "begin, until = start, start", f"{LANES}::test_the_stages_of_a_thread_are_in_one_row"),
    ("store_format/report/lanes.py", "or len(blocks) >= MOST_BLOCKS", "", f"{LANES}::test_thousands_of_lanes[True-tasks]"),
    ("store_format/report/lanes.py", "labels[lane] = label if seen[label] == 1 else", "labels[lane] = label if True else", f"{LANES}::test_names_of_lanes_are_distinct"),
    ("store_format/report/lanes.py", "        if left <= MOST_HEADINGS:\n            return shared\n        shared |=", "        shared |=", f"{LANES}::test_few_threads_keep_their_lanes_beside_thousands_of_tasks"),
    ("query/_trace_formats.py", "if label[:1].isalnum():", "if False:", "tests/unit/test_timeline.py::test_names_are_no_words_of_the_language"),
    ("delivery/files/_tables.py", "            self._left_out.update(log.journals)\n", "            pass\n", f"{REFUSED}::test_a_table_that_is_refused_is_counted"),
    ("delivery/files/_artifacts.py", "        self._stream.progress.refused += len(sent.left_out)\n", "", f"{REFUSED}::test_what_was_deferred_and_is_refused_then_is_counted"),
    ("delivery/files/_artifacts.py", "delivered = left != self._waiting", "delivered = len(left) < len(self._waiting)", f"{REFUSED}::test_what_is_left_out_of_a_folder_is_counted_once"),
    ("delivery/files/_uploads.py", "Outcome(snapshot.left_out if only is None else {})", "Outcome(snapshot.left_out)", f"{REFUSED}::test_what_is_left_out_of_a_folder_is_counted_once"),
    ("delivery/files/_uploads.py", "                self._give_up(run_id, event.path, upload)\n", "", f"{REFUSED}::test_a_file_for_which_there_is_no_thread_is_sent_later"),
    ("journal/_snapshots.py", "os.walk(folder, onerror=fail)", "os.walk(folder)", f"{REFUSED}::test_a_folder_that_cannot_be_listed_waits"),
    ("delivery/store/_local_artifacts.py", "            raise unavailable\n", "            pass\n", f"{REFUSED}::test_a_folder_is_complete_once_there_is_space"),
    ("delivery/journals/_stream.py", "self._asked or self._progress_is_outdated() or", "self._asked or", f"{REFUSED}::test_a_table_of_two_programs_waits_for_neither"),
    ("delivery/journals/_stream.py", "self._asked or self._progress_is_outdated() or", "self._progress_is_outdated() or", f"{REFUSED}::test_a_table_of_two_programs_is_tried_for_both"),
    ("delivery/store/_local_artifacts.py", "explained(\"cannot use a temporary folder\"), ", "", "tests/faults/test_files_of_delivery.py::test_without_a_temporary_folder"),
]  # fmt: skip


def main(workers: int = 2, only: str = "") -> int:
    """Plant each fault whose row contains the text `only`.

    Before, the tests must pass without any fault: else none of them says anything.

    Returns:
        0 if a test has noticed each fault, 1 if not, and 2 if no row contains the text.
    """
    planted = [row for row in FAULTS if any(only in text for text in row)]
    if not planted:
        print(f"no row of FAULTS contains {only!r}", file=sys.stderr)
        return 2
    copies: queue.SimpleQueue[Path] = queue.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as pool:
        for number in range(workers):
            copies.put(_copy(Path(folder) / str(number)))
        sound = _tested(Path(folder) / "0", ["-n", str(workers), *dict.fromkeys(row[-1] for row in planted)], 1800)
        if sound.returncode != 0:
            print(f"without any fault, the tests fail:\n{sound.stdout}")
            return 1

        def plant(fault: tuple[str, str, str, str]) -> str:
            copy = copies.get()
            try:
                return _outcome(copy, *fault)
            finally:
                copies.put(copy)

        survivors = 0
        for fault, outcome in zip(planted, pool.map(plant, planted), strict=True):
            survivors += not outcome.startswith("noticed")
            print(f"{outcome}: {fault[0]}: {fault[1].strip()!r} -> {fault[2].strip()!r}", flush=True)
    print(f"{len(planted)} planted, {len(planted) - survivors} killed")
    return int(survivors > 0)


def _copy(target: Path) -> Path:
    for name in ("trackdsl", "tests"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    shutil.copy(ROOT / "pyproject.toml", target)
    return target


def _outcome(copy: Path, file: str, before: str, after: str, test: str) -> str:
    path = copy / "trackdsl" / file
    source = path.read_text()
    if source.count(before) != 1:
        return f"the file has this text {source.count(before)} times: bring the row up to date"
    path.write_text(source.replace(before, after))
    try:
        code = _tested(copy, ["-p", "no:xdist", test], 300).returncode
    except subprocess.TimeoutExpired:
        return "noticed, as something waits in vain"
    finally:
        path.write_text(source)
    return {0: "not noticed", 1: "noticed"}.get(code, f"pytest ended with {code}")


def _tested(copy: Path, arguments: list[str], patience: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-o", "addopts=",
         "--hypothesis-profile", "planted", "-m", "slow or not slow", *arguments],
        cwd=copy, env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, timeout=patience, check=False,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(only=" ".join(sys.argv[1:])))
