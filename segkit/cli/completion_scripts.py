"""The scripts of `segkit completion`: tables of words and a function that finds the command before the cursor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from segkit.cli.main import PROGRAM

BASH = r"""# {comment}
_segkit() {{
    local IFS=$'\n' cur=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
    local location= option= word words= files=
    for word in "${{COMP_WORDS[@]:0:COMP_CWORD}}"; do
        case "$location${{location:+ }}${{word##*/}}" in
            {locations}) location="$location${{location:+ }}${{word##*/}}" ;;
        esac
        [[ $word == --* ]] && option=$word
    done
    if [[ $cur == -* ]]; then
        case "$location" in
{options}
        esac
    else
        case "$location" in
{commands}
        esac
        case "$location $option" in
{repeated}
        esac
        case "$location $previous" in
{values}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
    if [[ $files ]]; then
        compopt -o filenames 2>/dev/null
        COMPREPLY+=($(compgen -f -- "$cur"))
    fi
}}
complete -o bashdefault -o default -F _segkit {program}"""

ZSH = r"""#compdef {program}
# {comment}
_segkit() {{
    local location= option= word
    local -a entries
    for word in ${{words[1,CURRENT-1]}}; do
        case "$location${{location:+ }}${{word:t}}" in
            ({locations}) location="$location${{location:+ }}${{word:t}}" ;;
        esac
        [[ $word == --* ]] && option=$word
    done
    if [[ $PREFIX == -* ]]; then
        case "$location" in
{options}
        esac
        _describe -o option entries
        return
    fi
    case "$location ${{words[CURRENT-1]}}" in
{values}
    esac
    case "$location $option" in
{repeated}
    esac
    case "$location" in
{commands}
        (*) _files; return ;;
    esac
    _describe command entries
}}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _segkit "$@"
else
    compdef _segkit {program}
fi"""

FISH = r"""# {comment}
function __segkit_location
    set -l location
    for word in (commandline -opc)
        switch (string join ' ' -- $location (string replace -r '.*/' '' -- $word))
            case {locations}
                set -a location (string replace -r '.*/' '' -- $word)
        end
    end
    string join ' ' -- $location
end
{entries}"""


@dataclass(frozen=True)
class Option:
    """An option of a command.

    Attributes:
        name: with its dashes.
        help: a line.
        takes_value: whether a value follows.
        words: the values to choose from; empty: any, such as a file.
        allows_files: whether a file may be named instead of one of the words.
        is_repeated: whether several values may follow.
    """

    name: str
    help: str = ""
    takes_value: bool = False
    words: tuple[str, ...] = ()
    allows_files: bool = False
    is_repeated: bool = False


@dataclass(frozen=True)
class CommandWords:
    """What may follow a command.

    Attributes:
        location: the words so far, such as `segkit data check`.
        commands: subcommand, or word to choose -> a line of help.
        options: its options.
    """

    location: str
    commands: Mapping[str, str] = field(default_factory=dict)
    options: tuple[Option, ...] = ()


def write_bash(commands: Sequence[CommandWords], comment: str) -> str:
    """Write the script for bash.

    Args:
        commands: what may follow each command.
        comment: the first line.

    Returns:
        The script.
    """

    def write_case(pattern: str, words: Iterable[str], is_config: bool = False) -> str:
        files = " files=1" if is_config else ""
        return f"            {_quote(pattern)}) words={_quote(chr(10).join(words))}{files} ;;"

    values = [(f"{c.location} {option.name}", option) for c in commands for option in c.options if option.words]
    return BASH.format(
        comment=comment,
        program=PROGRAM,
        locations="|".join(_quote(command.location) for command in commands),
        options="\n".join(write_case(c.location, (o.name for o in c.options)) for c in commands),
        commands="\n".join(write_case(c.location, c.commands) for c in commands if c.commands),
        repeated="\n".join(write_case(pattern, o.words) for pattern, o in values if o.is_repeated),
        values="\n".join(write_case(pattern, o.words, o.allows_files) for pattern, o in values),
    )


def write_zsh(commands: Sequence[CommandWords], comment: str) -> str:
    """Write the script for zsh.

    Args:
        commands: what may follow each command.
        comment: the line after the first.

    Returns:
        The script.
    """

    def write_entries(pattern: str, helps: Iterable[tuple[str, str]]) -> str:
        entries = " ".join(_quote(f"{name}:{help}") for name, help in helps)
        return f"        ({_quote(pattern)}) entries=({entries}) ;;"

    def write_words(pattern: str, option: Option) -> str:
        words = " ".join(map(_quote, option.words))
        files = " _files;" if option.allows_files else ""
        return f"        ({_quote(pattern)}) compadd -- {words};{files} return ;;"

    values = [(f"{c.location} {option.name}", option) for c in commands for option in c.options if option.words]
    return ZSH.format(
        comment=comment,
        program=PROGRAM,
        locations="|".join(_quote(command.location) for command in commands),
        options="\n".join(write_entries(c.location, ((o.name, o.help) for o in c.options)) for c in commands),
        commands="\n".join(write_entries(c.location, c.commands.items()) for c in commands if c.commands),
        repeated="\n".join(write_words(pattern, option) for pattern, option in values if option.is_repeated),
        values="\n".join(write_words(pattern, option) for pattern, option in values),
    )


def write_fish(commands: Sequence[CommandWords], comment: str) -> str:
    """Write the script for fish.

    Args:
        commands: what may follow each command.
        comment: the first line.

    Returns:
        The script.
    """
    entries = []
    for command in commands:
        condition = _quote_fish(f'test (__segkit_location) = "{command.location}"')
        complete = f"complete -c {PROGRAM} -n {condition}"
        for name, help in command.commands.items():
            entries.append(f"{complete} -f -a {_quote_fish(name)} -d {_quote_fish(help)}")
        for option in command.options:
            words = f" -a {_quote_fish(' '.join(option.words))}" if option.words else ""
            needs_word = option.words and not option.allows_files
            value = (" -x" if needs_word else " -r") + words if option.takes_value else ""
            entries.append(f"{complete} -l {option.name.removeprefix('--')}{value} -d {_quote_fish(option.help)}")
    locations = " ".join(_quote_fish(command.location) for command in commands)
    return FISH.format(comment=comment, locations=locations, entries="\n".join(entries))


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _quote_fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
