"""What `--help` shows of each magic."""

STAGE_HELP = """\
%%stage NAME [KEY=EXPRESSION …] [OPTIONS]

This cell is a stage: a run below the notebook's experiment. Each value is assigned to its key and is a parameter.
NAME may use variables: fit-{model}.

  --metrics acc,f1       variables that are metrics, read when the cell is over
  --artifacts fig,frame  variables that are kept as files
  --params auto          which literals of the cell are parameters: auto (all at top level), names, or none
  --returns model,acc    names for the values of the last expression
  --no-capture           record neither the value of the last expression nor what the cell prints and shows
  --keep                 keep earlier executions of this cell beside this one
  --tags team=cv,try=2   tags of the run
  --quiet                show nothing below the cell

%%stage fit-{model} lr=0.1 depth=n --metrics acc
"""
EXPERIMENT_HELP = """\
%experiment NAME [KEY=EXPRESSION …] [--run-name NAME] [--tags a=b]

Opens the notebook's root run in the MLflow experiment NAME; the one that was open ends. Alone it says which is open,
with --end it ends it. %%experiment NAME makes one cell a root run; it takes the options of %%stage too.

%experiment churn seed=42
"""
TRACKED_HELP = """\
%tracked FUNCTION [EXPRESSION …] [KEY=EXPRESSION …]

Calls a function as a stage, without decorating it.

%tracked train lr=0.3
"""
TRACKDSL_HELP = """\
%trackdsl [tree|status|last|compare|undo]

  tree     the runs of this notebook; also without an argument
  status   what waits for delivery
  last     what was shown last
  compare  the last execution against the one before
  undo     take the last execution back: its run is marked as superseded and deleted
"""
