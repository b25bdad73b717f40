# The rest of board.sh: units, functions, and the verbs.

unit() {
  cat <<UNIT
[Unit]
Description=hob runs functions
Documentation=https://docs.aws.amazon.com/lambda/
After=network.target
ConditionPathExists=$current/hob

[Service]
Type=notify
NotifyAccess=all
ExecStartPre=-/bin/sh $lib/deploy.sh boot
ExecStart=$current/hob serve --config $etc/hob.toml
ExecReload=/bin/kill -HUP \$MAINPID
ExecStop=-/bin/sh $lib/deploy.sh drain \$MAINPID
Restart=on-failure
RestartSec=2
KillMode=mixed
TimeoutStopSec=75
Delegate=yes
OOMPolicy=continue
LimitNOFILE=65536
UMask=0027
UNIT
  # Workers are isolated by the server itself, which needs its namespaces, mounts and users for
  # that: here is only what does not take them away.
  [ "$uid" != 0 ] || cat <<UNIT
RuntimeDirectory=hob
RuntimeDirectoryMode=0750
RuntimeDirectoryPreserve=yes
StateDirectory=hob
LockPersonality=yes
ProtectClock=yes
ProtectKernelModules=yes
ProtectHostname=yes
RestrictRealtime=yes
SystemCallArchitectures=native
UNIT
  cat <<UNIT

[Install]
WantedBy=$unit_target
UNIT
}

openrc_script() {
  cat <<SCRIPT
#!/sbin/openrc-run
description="hob runs functions"
supervisor=supervise-daemon
command=/bin/sh
command_args="$lib/deploy.sh supervised"
output_log=$log
error_log=$log
respawn_delay=2
respawn_max=0
retry=TERM/75/KILL/5
extra_started_commands="reload"
depend() { use net; }
start_pre() { /bin/sh $lib/deploy.sh boot; mkdir -p $run; }
reload() { /bin/sh $lib/deploy.sh reload; }
SCRIPT
}

init_script() {
  cat <<SCRIPT
#!/bin/sh
# hob runs functions
case "\${1:-}" in
  start) /bin/sh $lib/deploy.sh boot; exec /bin/sh $lib/deploy.sh start ;;
  stop) exec /bin/sh $lib/deploy.sh stop ;;
  restart) exec /bin/sh $lib/deploy.sh restart ;;
  reload) exec /bin/sh $lib/deploy.sh reload ;;
  *) echo "usage: \$0 start|stop|restart|reload" >&2; exit 2 ;;
esac
SCRIPT
}

# settle_file FILE MODE: standard input becomes that file, if it is another.
settle_file() {
  { mkdir -p "${1%/*}" && cat >"$1.new"; } || fail "write $1: it failed"
  if cmp -s "$1.new" "$1" 2>/dev/null; then rm -f "$1.new"; return 1; fi
  { chmod "$2" "$1.new" && mv -f "$1.new" "$1"; } || fail "write $1: it failed"
}

# True if this user's services run without a login.
lingers() { [ "$(loginctl show-user "$uid" -p Linger 2>/dev/null)" = Linger=yes ]; }

# Small systems have no program for it.
add_group() {
  for id in 999 998 997 996 995; do
    grep -q "^[^:]*:[^:]*:$id:" /etc/group && continue
    echo "hob:x:$id:" >>/etc/group
    return
  done
  return 1
}

# install VERSION: everything around the binary; what the board's owner may have changed stays.
install() {
  mkdir -p "$lib" "$bin" "$etc/functions" "$data" "$run" || fail "the directories cannot be made"
  [ "$uid" != 0 ] || grep -q '^hob:' /etc/group 2>/dev/null ||
    { has groupadd && groupadd --system hob; } || { has addgroup && addgroup -S hob; } || add_group ||
    echo "note there is no group hob: only root may use the socket"
  # shellcheck disable=SC2154 # this text itself, which the deployer's command keeps
  printf '%s\n' "$program" | settle_file "$lib/deploy.sh" 644
  board=${2:-auto}
  if [ -e "$etc/hob.toml" ]; then
    [ "$board" = auto ] || grep -q "^board *= *\"$board\"" "$etc/hob.toml" ||
      echo "note $etc/hob.toml is there already and says nothing of board $board"
  else
    {
      echo 'listen = "127.0.0.1:4620"'
      echo "data = \"$data\""
      echo "functions = \"$etc/functions\""
      [ "$board" = auto ] || echo "board = \"$board\""
    } | settle_file "$etc/hob.toml" 640
  fi
  to=../lib/hob/current/hob
  [ "$(readlink "$bin/hob" 2>/dev/null)" = "$to" ] || { rm -f "$bin/hob"; ln -s "$to" "$bin/hob"; }
  case $(service) in
    systemd)
      unit | settle_file "$units/hob.service" 644 && systemctl daemon-reload
      systemctl enable hob.service 2>/dev/null || echo "note the unit could not be enabled"
      [ "$uid" = 0 ] || lingers || loginctl enable-linger 2>/dev/null ||
        echo "note without lingering the server ends when you log out: root may loginctl enable-linger $(id -un)"
      ;;
    openrc)
      openrc_script | settle_file /etc/init.d/hob 755
      rc-update add hob default >/dev/null || echo "note the service could not be added"
      ;;
    init)
      init_script | settle_file /etc/init.d/S60hob 755
      [ -e /etc/init.d/rcS ] || echo "note /etc/init.d/S60hob start has to be run at boot"
      ;;
    *)
      echo "note the server does not survive a reboot: there is no service for users"
      [ "$(loginctl show-session -p KillUserProcesses 2>/dev/null)" != KillUserProcesses=yes ] ||
        echo "note the server ends when you log out: logind is told to end what users leave behind"
      ;;
  esac
  echo "installed"
}

# place NAME CONTENT VERSION: the zip's content takes the place of the function's folder. Beside
# the folders it would be taken for one of them.
place() {
  umask 077
  zip=$lib/incoming/zip-$2/hob new=$etc/functions.new/$1 folder=$etc/functions/$1
  hob=$lib/versions/$3/hob
  if [ -f "$zip" ]; then
    rm -rf "$new"
    mkdir -p "$new" "$lib/functions" || fail "mkdir $new: it failed"
    "$hob" helper unfold "$zip" "$new" || fail "unpack function $1: it failed"
    sync
    if [ -d "$folder" ]; then
      "$hob" helper exchange "$new" "$folder" 2>/dev/null ||
        { mv "$folder" "$new.old" && mv "$new" "$folder"; } || fail "replace $folder: it failed"
    else
      mv "$new" "$folder" || fail "write $folder: it failed"
    fi
    echo "$2" >"$lib/functions/$1"
    rm -rf "$etc/functions.new" "$lib/incoming/zip-$2"
  fi
  [ "$(first_line "$lib/functions/$1")" = "$2" ] || return 1
  await_function "$1"
  echo placed
}

# await_function NAME: the server takes folders over within seconds, and whoever deploys one calls it
# next. One that is not valid is listed as well.
await_function() {
  asker=$current/hob
  patience=10
  until client 5 ls && grep -q "^$1 " "$lib/answer"; do
    patience=$((patience - 1))
    [ $patience -gt 0 ] || return 0
    sleep 1
  done
}

# drop NAME: a function that is gone on the deployer's side.
drop() {
  mkdir -p "$etc/functions.new"
  mv "$etc/functions/$1" "$etc/functions.new/$1" && rm -f "$lib/functions/$1"
  rm -rf "$etc/functions.new"
  echo dropped
}

verb=${1:-}
[ $# = 0 ] || shift
case $verb in
  look) look "$@" ;;
  put) put "$@" ;;
  keep) keep "$@" ;;
  install) install "$@" ;;
  place) place "$@" ;;
  drop) drop "$@" ;;
  launch)
    # Apart from this session, with nothing of it open.
    case $(first_line "$lib/outcome") in "$1 "*) echo launched; exit ;; esac
    ! locked || { echo busy; exit; }
    # shellcheck disable=SC2046 # words are wanted
    $(apart) $(outlives) sh "$lib/deploy.sh" activate "$@" </dev/null >>"$lib/deploy.log" 2>&1 &
    echo launched
    ;;
  activate) activate "$@" ;;
  await) await_outcome "$@" ;;
  confirm) echo "$1" >"$lib/confirmed.new" && mv -f "$lib/confirmed.new" "$lib/confirmed" && echo confirmed ;;
  boot) boot ;;
  drain) drain "$@" ;;
  supervised) supervised ;;
  reload) signal HUP ;;
  start | stop | restart) service_do "$verb" ;;
  *) fail "no such verb" ;;
esac
