#!/bin/bash
# Runs on every worker of a Cloud TPU, where launch/cloud_tpu.py copies it.
#
#   tpu_worker.sh bootstrap COMMIT BUCKET MOUNT
#   tpu_worker.sh start NAME COMMIT ARGUMENTS OF main.py
#   tpu_worker.sh state NAME
#   tpu_worker.sh stop NAME
#
# Each may be run again at any time: what is there is left alone.
set -euo pipefail

readonly home="${HOME}/vie_jax"
# Of the PyPI; it also brings a Python where the machine's is too old.
readonly uv_version=0.13.9
readonly python_versions='>=3.11.4,<3.13'

say() {
  printf '%s: %s\n' "$(hostname)" "$*" >&2
}

fail() {
  say "$*"
  exit 1
}

# Unpacks the code and installs what it needs, beside one another. Both get
# their names last, so that one which was cut short is made again.
install_code() {
  local commit="$1"
  local folder="${home}/${commit}"
  if [[ -e "${folder}/complete" ]]; then
    say "code and packages of ${commit} are there"
    return
  fi
  rm -rf "${folder}"
  mkdir -p "${folder}/code"
  tar --extract --gzip --file "${HOME}/vie_jax-${commit}.tar.gz" \
    --directory "${folder}/code"
  if [[ ! -x "${home}/uv/bin/uv" ]]; then
    rm -rf "${home}/uv" "${home}/uv.new"
    python3 -m pip install --quiet --target "${home}/uv.new" "uv==${uv_version}"
    mv "${home}/uv.new" "${home}/uv"
  fi
  say 'installing packages'
  "${home}/uv/bin/uv" venv --quiet --python "${python_versions}" "${folder}/venv"
  "${home}/uv/bin/uv" pip install --quiet --python "${folder}/venv/bin/python" \
    --constraint "${folder}/code/constraints.txt" \
    --constraint "${folder}/code/launch/constraints.txt" \
    --editable "${folder}/code[tpu,gcs]"
  touch "${folder}/complete"
  say "code and packages of ${commit} are installed"
}

install_gcsfuse() {
  if command -v gcsfuse >/dev/null; then
    return
  fi
  say 'installing gcsfuse'
  local key=/usr/share/keyrings/cloud.google.asc
  local source
  source="https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -cs) main"
  curl --fail --silent --show-error --location \
    https://packages.cloud.google.com/apt/doc/apt-key.gpg |
    sudo tee "${key}" >/dev/null
  echo "deb [signed-by=${key}] ${source}" |
    sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
  sudo apt-get update --quiet=2
  sudo apt-get install --quiet=2 --yes gcsfuse
}

mount_bucket() {
  local bucket="$1" mount="$2"
  if mountpoint --quiet "${mount}"; then
    local mounted
    mounted="$(findmnt --noheadings --output SOURCE --target "${mount}")"
    if [[ "${mounted}" != "${bucket}" ]]; then
      fail "${mount} is ${mounted}, not the bucket ${bucket}"
    fi
    say "${bucket} is mounted"
    return
  fi
  install_gcsfuse
  sudo mkdir -p "${mount}"
  sudo chown "$(id -u):$(id -g)" "${mount}"
  # Folders of a bucket need not be objects. What stays behind as long as it is
  # mounted must not keep the lock.
  gcsfuse --implicit-dirs "${bucket}" "${mount}" >&2 9>&-
  say "${bucket} is mounted now"
}

bootstrap() {
  local commit="$1" bucket="$2" mount="$3"
  mkdir -p "${home}"
  exec 9>"${home}/lock"
  if ! flock --nonblock 9; then
    say 'waiting for another set-up of this worker to end'
    flock 9
  fi
  install_code "${commit}"
  mount_bucket "${bucket}" "${mount}"
}

# Not so after a restart of the machine, even if the number is somebody else's.
is_running() {
  local pid
  [[ ! -e "$1/exit_code" ]] || return 1
  pid="$(cat "$1/pid" 2>/dev/null)" || return 1
  grep --quiet --text main.py "/proc/${pid}/cmdline" 2>/dev/null
}

start() {
  local name="$1" commit="$2"
  shift 2
  local run="${home}/runs/${name}" folder="${home}/${commit}"
  mkdir -p "${run}"
  exec 9>"${run}/lock"
  flock 9
  if is_running "${run}"; then
    say "${name} runs already"
    return
  fi
  rm -f "${run}/exit_code"
  # In a session of its own, so that it outlives this one of ssh. The exit code
  # gets its name last.
  # shellcheck disable=SC2016
  setsid --fork bash -c '
    run="$1" folder="$2"
    shift 2
    cd "${folder}/code" || exit
    "${folder}/venv/bin/python" main.py "$@" &
    echo "$!" >"${run}/pid.new"
    mv "${run}/pid.new" "${run}/pid"
    code=0
    wait "$!" || code="$?"
    echo "${code}" >"${run}/exit_code.new"
    mv "${run}/exit_code.new" "${run}/exit_code"
  ' bash "${run}" "${folder}" "$@" \
    >>"${run}/log" 2>&1 </dev/null 9>&-
  # What comes next may ask for the state.
  for _ in {1..100}; do
    if is_running "${run}" || [[ -e "${run}/exit_code" ]]; then
      say "${name} started"
      return
    fi
    sleep 0.1
  done
  fail "${name} did not start; see ${run}/log"
}

# One line on standard output, which launch/cloud_tpu.py reads.
state() {
  local run="${home}/runs/$1"
  if is_running "${run}"; then
    echo 'vie_jax running'
  elif [[ -e "${run}/exit_code" ]]; then
    echo "vie_jax exited $(cat "${run}/exit_code")"
  else
    echo 'vie_jax none'
  fi
}

# As a preemption would: main.py saves, and ends.
stop() {
  local run="${home}/runs/$1"
  if ! is_running "${run}"; then
    say "$1 does not run"
    return
  fi
  kill -TERM "$(cat "${run}/pid")"
  for _ in {1..240}; do
    if ! is_running "${run}"; then
      say "$1 has ended"
      return
    fi
    sleep 0.5
  done
  fail "$1 has not ended after 120 s"
}

case "${1:-}" in
  bootstrap | start | state | stop) "$@" ;;
  *) fail "unknown: ${1:-nothing}" ;;
esac
