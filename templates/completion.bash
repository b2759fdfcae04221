# Completion of comfy-machine for bash: source <(comfy-machine completion bash)
_comfy_machine() {
    local line=${COMP_LINE:0:COMP_POINT} current cut breaks candidate candidates
    local -a words
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    current=${words[${#words[@]} - 1]}
    local IFS=$'\n'
    candidates=$(COMFY_MACHINE_WORDS="${words[*]:1}"$'\n.' "${words[0]/#\~/$HOME}" completion words 2>/dev/null)
    COMPREPLY=()
    if [[ $candidates == :files ]]; then
        compopt -o default
        return
    fi
    # Readline replaces only what follows the last of these.
    breaks=${COMP_WORDBREAKS//[^:=]/}
    [[ $breaks ]] && cut=${current%"${current##*[$breaks]}"}
    for candidate in $candidates; do
        candidate=${candidate%%$'\t'*}
        [[ $candidate == *= ]] && compopt -o nospace
        COMPREPLY+=("${candidate#"$cut"}")
    done
}
complete -F _comfy_machine comfy-machine
