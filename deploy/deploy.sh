#!/usr/bin/env bash
# Usage: deploy/deploy.sh IMAGE
#
# Replaces the running container by one of IMAGE. The old container is stopped and kept aside until
# the new one is healthy, and started again when it does not become so: exit 1, service as before.
# Whatever ends this script early, a signal too, ends in the same roll back.
#
#   NEPHROS_ENV_FILE   file with NEPHROS_TOKEN=…, default /etc/nephros/nephros.env
#   NEPHROS_PUBLISH    what `docker run --publish` gets, default 8080:8080
#   NEPHROS_WAIT       seconds that a container may take to become healthy, default 90
set -euo pipefail

image=${1:?usage: deploy/deploy.sh IMAGE}
env_file=${NEPHROS_ENV_FILE:-/etc/nephros/nephros.env}
publish=${NEPHROS_PUBLISH:-8080:8080}
wait_seconds=${NEPHROS_WAIT:-90}
current=nephros
previous=nephros-previous
here=$(cd "$(dirname "$0")" && pwd)
started=false
waiter=

exists() {
  docker inspect --type container --format '{{.Id}}' "$1" >/dev/null 2>&1
}

# The container aside is the last one that was healthy.
restore_previous() {
  if exists "$current"; then
    docker rm --force "$current" >/dev/null
  fi
  docker rename "$previous" "$current"
  docker start "$current" >/dev/null
}

# In the background, for a signal to be handled at once and not after the last second of waiting.
wait_healthy() {
  "$here/wait-healthy" "$current" "$wait_seconds" &
  waiter=$!
  wait "$waiter"
}

roll_back() {
  local code=$?
  trap - EXIT
  [[ -z $waiter ]] || kill "$waiter" 2>/dev/null || true
  if exists "$previous"; then
    echo "rolling back to the previous container" >&2
    restore_previous
    if wait_healthy; then
      echo "the previous container serves again" >&2
    fi
  elif $started && exists "$current"; then
    echo "first deployment: there is nothing to roll back to" >&2
    docker rm --force "$current" >/dev/null
  fi
  exit $((code == 0 ? 1 : code))
}

start_new() {
  docker run --detach --name "$current" --restart unless-stopped \
    --publish "$publish" --env-file "$env_file" --volume nephros-data:/data \
    --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges:true --pids-limit 512 \
    --log-opt max-size=10m --log-opt max-file=3 \
    "$image" >/dev/null
}

if [[ ! -r $env_file ]]; then
  echo "error: \`$env_file\` cannot be read" >&2
  echo "hint: write NEPHROS_TOKEN=… into it, owned by this user, mode 600" >&2
  exit 2
fi

# Nothing is touched before the new image is on this machine.
docker pull --quiet "$image" >/dev/null

if exists "$previous"; then
  echo "the last deployment did not end: restoring its previous container" >&2
  restore_previous
fi

trap roll_back EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
if exists "$current"; then
  docker rename "$current" "$previous"
  docker stop "$previous" >/dev/null
fi
started=true
start_new
wait_healthy
trap - EXIT HUP INT TERM

echo "serving $image"
if exists "$previous"; then
  docker rm --force "$previous" >/dev/null
fi
# Images of the last week stay for a roll back by hand; other projects' images are not touched.
docker image prune --all --force --filter label=org.opencontainers.image.title=nephros --filter until=168h >/dev/null
