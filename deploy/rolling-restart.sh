#!/usr/bin/env bash
# Restarts the nodes of a cluster one after another, without a failed write for cluster-mode clients:
# each is drained, stopped, started, and has caught up and sees all others before the next one.
#
#   deploy/rolling-restart.sh http://10.0.0.1:7421 http://10.0.0.2:7421 http://10.0.0.3:7421
#
# $START is run with the admin URL and the node's number after a node has stopped, and has to start it
# again. By default it is empty: whatever runs the node (systemd with Restart=always, Kubernetes) does.
# $QUORATE is the command (quorate), $WAIT how many seconds a node may take to be back (300).
# Ends at the first thing that goes wrong, with exit code 1 and all other nodes running.
set -euo pipefail

quorate=${QUORATE:-quorate}
wait=${WAIT:-300}

if [ $# -eq 0 ]; then
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0" >&2
    exit 2
fi

# Succeeds once `for=sync` is answered with 200: the node counts again.
in_sync() {
    [ "$(curl --silent --max-time 5 --output /dev/null --write-out '%{http_code}' \
        "$1/health/ready?for=sync")" = 200 ]
}

field() { # URL, name of a field of /status
    curl --silent --fail --max-time 5 "$1/status" | tr ',{' '\n\n' |
        awk -F: -v name="\"$2\"" '$1 == name && !seen { print $2; seen = 1 }'
}

wait_for_sync() { # URL, the start before, or nothing
    local deadline=$((SECONDS + wait))
    until in_sync "$1" && [ "$(field "$1" incarnation)" != "${2:-}" ]; do
        if [ $SECONDS -ge $deadline ]; then
            echo "$1 has not caught up within $wait s: $(curl --silent "$1/health/ready?for=sync")" >&2
            exit 1
        fi
        sleep 0.2
    done
}

# A node that is primary next needs the others at once: all have to see each other before one goes.
wait_for_sessions() {
    local deadline=$((SECONDS + wait)) url
    for url in "$@"; do
        until curl --silent --fail --max-time 5 "$url/status" | grep --quiet '"connected":true' &&
            ! curl --silent --max-time 5 "$url/status" | grep --quiet '"connected":false'; do
            if [ $SECONDS -ge $deadline ]; then
                echo "$url does not see all members within $wait s" >&2
                exit 1
            fi
            sleep 0.1
        done
    done
}

for url in "$@"; do
    wait_for_sync "$url"
done
for url in "$@"; do
    wait_for_sessions "$@"
    node=$(field "$url" node)
    start=$(field "$url" incarnation)
    echo "node-$node"
    "$quorate" drain --admin "$url"
    "$quorate" shutdown --admin "$url"
    if [ -n "${START:-}" ]; then
        $START "$url" "$node"
    fi
    wait_for_sync "$url" "$start"
done
echo "all nodes are restarted"
