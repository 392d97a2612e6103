#!/bin/busybox sh
# The first program in the guest, from the initramfs: makes the host's root file system the guest's, read-only over 9p
# under a tmpfs that takes what is written, and goes on there as guest.sh. In its environment, by the kernel's command
# line: repository, modules (the folder of the kernel's packages), test (its path) and timeout (seconds).
export PATH=/bin
/bin/busybox mkdir -p /proc /sys /dev /lower /upper /root
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module" || echo "insmod $module failed"; done </modules/order
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro host /lower
mount -t tmpfs upper /upper
mkdir /upper/written /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/written,workdir=/upper/work root /root
for folder in proc sys dev; do mount --move /$folder /root/$folder; done
exec switch_root /root /bin/bash "$repository/test/kernel/guest.sh"
