#!/bin/bash
# Process 1 of the guest, on the files of the machine outside: runs the test files of $run/tests one after the other as
# plain Node, and writes what they say as one TAP stream to the second serial port. All else goes to the first, the console.
export PATH=$repository/node_modules/.bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8 TAP_TIMEOUT=$timeout
mapfile -t tests <"$run/tests"
mkdir -p /lib/modules && mount --bind "$modules" /lib/modules
for folder in /run /dev/shm; do mkdir -p $folder && mount -t tmpfs tmpfs $folder; done
mkdir -p /dev/pts /run/netns && mount -t devpts devpts /dev/pts
mount -t cgroup2 cgroup2 /sys/fs/cgroup
modprobe tun
ip link set lo up
stty -F /dev/ttyS1 raw -echo
exec 3>/dev/ttyS1
cd "$repository" || exit

# In QEMU's emulation Node itself crashes in about one of ten starts (5 of 60 measured; none on real processors), by signal 5
# or 11: where a file failed and the kernel tells of such an end meanwhile, of the file or of a program that it started, it
# runs again; one that starts Node a dozen times often more than once. In one thread (-accel tcg,thread=single) none of 48
# starts crashed, at half the speed, for which the tests' deadlines are too short.
echo 1 >/proc/sys/kernel/print-fatal-signals
crashes() {
  dmesg | grep --extended-regexp 'fatal signal (5|11)\.'
}
run_file() {
  for _ in 1 2 3 4 5 6; do
    before=$(crashes | wc -l)
    timeout --kill-after=10 "$timeout" node "$1" </dev/null >/run/tap
    status=$?
    [ "$status" != 0 ] && [ "$(crashes | wc -l)" != "$before" ] || break
    echo "Node crashed in $1, which ended with $status: $(crashes | tail -n 1)"
  done
}

echo 'TAP version 14' >&3
for number in "${!tests[@]}"; do
  file=${tests[number]}
  began=${EPOCHREALTIME/./}
  # Its first line, too, so that the reader knows that it has begun.
  printf '# Subtest: %s\n    TAP version 14\n' "$file" >&3
  run_file "$file"
  sed '1d; s/^/    /' /run/tap >&3
  [ "$status" = 0 ] && result=ok || result='not ok'
  echo "$result $((number + 1)) - $file # time=$(((${EPOCHREALTIME/./} - began) / 1000))ms" >&3
  [ "$status" = 0 ] || printf '  ---\n  exitCode: %s\n  ...\n' "$status" >&3
done
echo "1..${#tests[@]}" >&3
echo o >/proc/sysrq-trigger
sleep 60
