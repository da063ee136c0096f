# Completion of vmrun for fish. The program that is first in PATH says what can follow; see `vmrun completions --help`.
function __vmrun_complete
    command vmrun __complete -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token --cut-at-cursor) 2>/dev/null
end
complete --command vmrun --no-files --keep-order --arguments '(__vmrun_complete)'
