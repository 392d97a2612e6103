// What nodes have in their kernels and their files that may be Fulmar's, as text, for before and after.

import type { Lab } from '../lab/lab.ts'

/** Without what counts up or is drawn at random. */
const LISTING = `nft -s list ruleset
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

/** Of each node of a lab, in their order. */
export const listings = (lab: Lab): Promise<readonly string[]> =>
  Promise.all(lab.topology.nodes.map(async ({ name }) => (await lab.exec(name, ['sh', '-c', LISTING])).stdout))
