# First process of the guest of the tests: a shell that reads its commands from the channel.
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
for module in /lib/modules/*; do insmod "$module"; done
echo "guest: user space"
while true; do
  # A port is opened once; where nobody is at its outside end, the shell reads the end at once.
  sh 0<>/dev/vport0p0 1>&0 2>&1
  sleep 1
done
