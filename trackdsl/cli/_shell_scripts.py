"""The scripts with which shells complete `trackdsl`: click's, except for what they miss.

Bash splits the words of a command line also at the characters in `COMP_WORDBREAKS`, among them `:`, `=` and `@`, and
replaces only the part behind the last of them. So its script puts the words together again before it asks, and gives
bash only the rest of each answer. It needs no other package; `bash-completion` does the same for its own scripts.

Of `--option=value`, the answers are values. Zsh would replace the whole word by one of them, and fish would drop those
that do not begin like the word.

Behind a module or a package more follows, so no script adds a space there.
"""

from __future__ import annotations

from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' rest=$COMP_LINE breaks='^[:=@]+$'
    local response type value whole typed part before i words=()
    for ((i = 0; i <= COMP_CWORD; i++)); do
        part=${COMP_WORDS[i]}
        if [[ $i -gt 0 && $rest == [^[:space:]]* && ( $part =~ $breaks || $before =~ $breaks ) ]]; then
            words[-1]+=$part
        else
            words+=("$part")
        fi
        rest=${rest#*"$part"}
        before=$part
    done

    # What bash replaces, and what stands before it in the same word; of an option with its value, the value counts.
    whole=${words[-1]}
    [[ $whole == --*=* ]] && whole=${whole#*=}
    typed=$part
    [[ $typed =~ $breaks ]] && typed=
    before=${whole%%"$typed"}

    response=$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((${#words[@]} - 1)) %(complete_var)s=bash_complete $1)

    for completion in $response; do
        IFS=',' read type value <<< "$completion"

        if [[ $type == 'dir' ]]; then
            COMPREPLY=()
            compopt -o dirnames
        elif [[ $type == 'file' ]]; then
            COMPREPLY=()
            compopt -o default
        elif [[ $type == 'plain' ]]; then
            COMPREPLY+=("${value#"$before"}")
            # More follows behind a module or a package.
            [[ $value == *[.:] ]] && compopt -o nospace
        fi
    done

    return 0
}

%(complete_func)s_setup() {
    complete -o nosort -F %(complete_func)s %(prog_name)s
}

%(complete_func)s_setup;
"""

_ZSH = """\
#compdef %(prog_name)s

%(complete_func)s() {
    local -a beginnings
    local -a completions
    local -a completions_with_descriptions
    local -a response
    (( ! $+commands[%(prog_name)s] )) && return 1

    response=("${(@f)$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) %(complete_var)s=zsh_complete %(prog_name)s)}")

    # In an option with its value, what stands before the value stays.
    [[ ${words[CURRENT]} == --*=* ]] && compset -P 1 '*='

    for type key descr in ${response}; do
        if [[ "$type" == "plain" ]]; then
            if [[ "$key" == *[.:] ]]; then
                beginnings+=("$key")
            elif [[ "$descr" == "_" ]]; then
                completions+=("$key")
            else
                completions_with_descriptions+=("$key":"${descr//\\\\/\\\\\\\\}")
            fi
        elif [[ "$type" == "dir" ]]; then
            _path_files -/
        elif [[ "$type" == "file" ]]; then
            _path_files -f
        fi
    done

    if [ -n "$completions_with_descriptions" ]; then
        _describe -V unsorted completions_with_descriptions -U -i "$IPREFIX"
    fi

    if [ -n "$completions" ]; then
        compadd -U -i "$IPREFIX" -V unsorted -a completions
    fi

    if [ -n "$beginnings" ]; then
        compadd -U -i "$IPREFIX" -V unsorted -S '' -a beginnings
    fi
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    # autoload from fpath, call function directly
    %(complete_func)s "$@"
else
    # eval/source/. command, register function for later
    compdef %(complete_func)s %(prog_name)s
fi
"""  # noqa: E501 - A shell's line.

_FISH = """\
function %(complete_func)s;
    set -l response (env %(complete_var)s=fish_complete COMP_WORDS=(commandline -cp) COMP_CWORD=(commandline -t) %(prog_name)s);
    set -l option (string match --regex -- '^--[^=]*=' (commandline -ct));

    for completion in $response;
        set -l metadata (string split "," $completion);

        if test $metadata[1] = "dir";
            for path in (__fish_complete_directories $metadata[2]);
                echo "$option$path";
            end;
        else if test $metadata[1] = "file";
            for path in (__fish_complete_path $metadata[2]);
                echo "$option$path";
            end;
        else if test $metadata[1] = "plain";
            echo "$option$metadata[2]";
        end;
    end;
end;

complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)";
"""  # noqa: E501 - A shell's line.


class Bash(BashComplete):
    """Completion in bash, also behind `:`, `=` and `@`."""

    source_template = _BASH


class Zsh(ZshComplete):
    """Completion in zsh, also of the value in `--option=value`."""

    source_template = _ZSH


class Fish(FishComplete):
    """Completion in fish, also of the value in `--option=value`."""

    source_template = _FISH


#: By the name of the shell.
SHELLS: dict[str, type[ShellComplete]] = {"bash": Bash, "zsh": Zsh, "fish": Fish}
