# Completion of vmrun for bash. The program that is first in PATH says what can follow; see `vmrun completions --help`.
_vmrun() {
    local line=${COMP_LINE:0:COMP_POINT} word piece trimmed cut candidate i
    local -a words=()
    # bash splits words at = and : too: join what has no blank in between
    for ((i = 0; i <= COMP_CWORD; i++)); do
        piece=${COMP_WORDS[i]}
        trimmed=${line#"${line%%[![:space:]]*}"}
        if ((i == COMP_CWORD)); then piece=$trimmed; fi
        if ((i > 0)) && [[ $trimmed == "$line" ]]; then
            words[${#words[@]} - 1]+=$piece
        else
            words+=("$piece")
        fi
        line=${trimmed#"$piece"}
    done
    COMPREPLY=()
    word=${words[${#words[@]} - 1]}
    # an open quote: bash completes it as a file
    if [[ $word == *[\"\']* ]]; then return; fi
    words=("${words[@]//\\/}")
    # what bash takes for words before this one stays on the line
    cut=
    if [[ $COMP_WORDBREAKS == *:* && $word == *:* ]]; then cut=${word%"${word##*:}"}; fi
    if [[ $COMP_WORDBREAKS == *=* && $word == *=* ]]; then
        piece=${word%"${word##*=}"}
        if ((${#piece} > ${#cut})); then cut=$piece; fi
    fi
    while IFS=$'\t' read -r candidate _; do
        candidate=${candidate#"$cut"}
        case $candidate in
            *[!A-Za-z0-9_@%+=:,./~-]*)
                if [[ $candidate == '~/'* ]]; then
                    printf -v candidate '~/%q' "${candidate#'~/'}"
                else
                    printf -v candidate %q "$candidate"
                fi
                ;;
        esac
        COMPREPLY+=("$candidate")
    done < <(command vmrun __complete -- "${words[@]}" 2> /dev/null)
    # more can follow in the same word
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=/:,] ]]; then compopt -o nospace 2> /dev/null; fi
}
if ((BASH_VERSINFO[0] > 4 || (BASH_VERSINFO[0] == 4 && BASH_VERSINFO[1] >= 4))); then
    complete -o bashdefault -o default -o nosort -F _vmrun vmrun
else
    complete -o bashdefault -o default -F _vmrun vmrun
fi
