# Source it (`. examples/env.sh`): sets URL, KEY and SECRET to those of the gateway that `make run` started in this
# folder. What is set already stays.
_dev() {
    python3 -c 'import json, sys; print(json.load(open(".metagov/dev.json"))[sys.argv[1]])' "$1"
}
URL=${URL:-$(_dev url)}
KEY=${KEY:-$(_dev api_key)}
SECRET=${SECRET:-$(_dev signing_secret)}
export URL KEY SECRET
