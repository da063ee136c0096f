#compdef vmrun
# Completion of vmrun for zsh. The program that is first in PATH says what can follow; see `vmrun completions --help`.
_vmrun() {
    local value help quoted
    local -a whole whole_shown part part_shown
    while IFS=$'\t' read -r value help; do
        if [[ $value == '~/'* ]]; then quoted="~/${(q)value#'~/'}"; else quoted=${(q)value}; fi
        # more can follow in the same word
        if [[ $value == *[=/:,] ]]; then
            part+=("$quoted")
            part_shown+=("$value${help:+  -- $help}")
        else
            whole+=("$quoted")
            whole_shown+=("$value${help:+  -- $help}")
        fi
    done < <(command vmrun __complete -- "${(@Q)words[1,CURRENT-1]}" "${(Q)PREFIX}" 2> /dev/null)
    (( $#part )) && compadd -Q -l -V vmrun-part -S '' -d part_shown -a part
    (( $#whole )) && compadd -Q -l -V vmrun-whole -d whole_shown -a whole
    (( $#part + $#whole ))
}
# loaded by compinit, this file is the function's body; sourced, it has to be registered
if [[ $funcstack[1] == _vmrun ]]; then _vmrun "$@"; else compdef _vmrun vmrun; fi
