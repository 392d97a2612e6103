// What a host has in its kernel and its files that may be Fulmar's, as text, for before and after.

/** Without what counts up or is drawn at random. */
export const LISTING = `nft -s list ruleset
for family in -4 -6; do
  ip $family rule
  ip $family route show table all | sed 's/ expires [^ ]*//'
done
ip nexthop
ip -br link | awk '{ print $1, $2 }'
ip -br addr
find /sys/fs/bpf /run/fulmar /run/wireguard /var/lib/fulmar -mindepth 1 2>/dev/null | sort
ls -d /run/wireguard 2>/dev/null
true`
