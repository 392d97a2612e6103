#!/bin/bash
# Process 1 of the guest, on the files of the machine outside: runs the test file $test as plain Node, and writes what it
# says and how it ended to the second serial port. All else goes to the first, the console.
export PATH=$repository/node_modules/.bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8 TAP_TIMEOUT=$timeout
mkdir -p /lib/modules && mount --bind "$modules" /lib/modules
for folder in /run /dev/shm; do mkdir -p $folder && mount -t tmpfs tmpfs $folder; done
mkdir -p /dev/pts /run/netns && mount -t devpts devpts /dev/pts
mount -t cgroup2 cgroup2 /sys/fs/cgroup
modprobe tun
ip link set lo up
stty -F /dev/ttyS1 raw -echo
exec 3>/dev/ttyS1
cd "$repository" || exit
# The console tells of programs that crash.
echo 1 >/proc/sys/kernel/print-fatal-signals

began=${EPOCHREALTIME/./}
timeout --kill-after=10 "$timeout" node "$test" </dev/null >&3
printf '\nexit %s after %s ms\n' $? $(((${EPOCHREALTIME/./} - began) / 1000)) >&3
echo o >/proc/sysrq-trigger
sleep 60
