# Completion of comfy-machine for fish: comfy-machine completion fish | source
function __comfy_machine_candidates
    set -l words (commandline --tokenize --cut-at-cursor --current-process) (commandline --cut-at-cursor --current-token | string collect --allow-empty)
    set -l joined (string join -- \n $words[2..-1] . | string collect)
    set -l candidates (COMFY_MACHINE_WORDS="$joined" $words[1] completion words 2>/dev/null)
    if test "$candidates[1]" = :files
        set -l current (commandline --current-token --cut-at-cursor)
        set -l option (string match --regex '^-*machine=' -- $current)
        __fish_complete_path (string replace -- "$option" '' $current) | string replace --regex '^' -- "$option"
    else
        printf '%s\n' $candidates
    end
end
complete --command comfy-machine --no-files --arguments '(__comfy_machine_candidates)'
