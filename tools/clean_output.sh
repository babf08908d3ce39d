#!/bin/sh
# Remove what runs have made below output/, after saying what it is and asking. Called by `make clean-output`.
#
#   tools/clean_output.sh [FOLDER]      FOLDER is output by default
#   YES=1 tools/clean_output.sh         do not ask, as in a CI job
set -eu
folder=${1:-output}

list() { find "$folder" -mindepth 1 -maxdepth 1 ! -name README.md ! -name .gitignore; }

if [ ! -d "$folder" ]; then
    echo "clean-output: $folder is not there: nothing to remove"
    exit 0
fi
if [ -z "$(list)" ]; then
    echo "clean-output: $folder is empty: nothing to remove"
    exit 0
fi
echo "clean-output removes from $folder/:"
list | sort | while IFS= read -r each; do
    size=$(du -sh "$each" 2> /dev/null | cut -f 1)
    current=$(find "$each" -name current -type l 2> /dev/null | sort | while IFS= read -r link; do
        printf ', where %s is deployed' "$(basename "$(readlink "$link")")"
    done)
    nights=$(find "$each" -maxdepth 2 -type d -name '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]' 2> /dev/null | wc -l)
    [ "$nights" -eq 0 ] && held="" || held=", $nights nights"
    echo "  $(basename "$each")  $size$held$current"
done
echo "Trained models are among it: training again takes its time, and what a night recorded does not come back."
if [ "${YES:-}" != 1 ]; then
    if [ ! -t 0 ]; then
        echo "clean-output: nothing was removed, because there is no terminal to ask at. Next: make clean-output YES=1" >&2
        exit 2
    fi
    printf 'Remove it? [y/N] '
    read -r answer || answer=
    case $answer in
        y | Y | yes) ;;
        *)
            echo "clean-output: nothing was removed"
            exit 1
            ;;
    esac
fi
find "$folder" -mindepth 1 -maxdepth 1 ! -name README.md ! -name .gitignore -exec rm -rf -- {} +
echo "clean-output: done"
