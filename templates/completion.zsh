#compdef comfy-machine
# Completion of comfy-machine for zsh: source <(comfy-machine completion zsh)
_comfy_machine() {
    local -a candidates plain valued
    local candidate described
    candidates=("${(@f)$(COMFY_MACHINE_WORDS="${(F)words[2,CURRENT]}"$'\n.' ${~words[1]} completion words 2>/dev/null)}")
    if [[ $candidates[1] == :files ]]; then
        compset -P '*='
        _files
        return
    fi
    for candidate in $candidates; do
        described="${${candidate%%$'\t'*}//:/\\:}:${candidate#*$'\t'}"
        if [[ ${candidate%%$'\t'*} == *= ]]; then
            valued+=("$described")
        else
            plain+=("$described")
        fi
    done
    (( $#plain )) && _describe -t words comfy-machine plain
    (( $#valued )) && _describe -t options comfy-machine valued -S ''
}
if [[ $funcstack[1] == _comfy_machine ]]; then
    _comfy_machine "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
    compdef _comfy_machine comfy-machine
fi
