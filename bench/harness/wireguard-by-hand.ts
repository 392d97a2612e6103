// Joins the pods of two nodes of a lab by WireGuard as a person would by hand: a device each, keys, one peer, routes to the
// other's podCIDRs.

import type { Lab } from '../../test/lab/lab.ts'
import { DEVICE_MTU } from '../../lib/owned.ts'

const DEVICE = 'wg0'
const PORT = 51820
const READY_TIMEOUT_MS = 5_000

/** @param implementation whether the device is the kernel's or a wireguard-go that lives as long as the lab. */
export async function joinByHand(
  lab: Lab,
  a: string,
  b: string,
  implementation: 'kernel' | 'wireguard-go',
): Promise<void> {
  const keys = await Promise.all([a, b].map((node) => addDevice(lab, node, implementation)))
  const nodeOf = (name: string) => lab.topology.nodes.find((node) => node.name === name)!
  for (const [node, other, key] of [
    [a, b, keys[1]!],
    [b, a, keys[0]!],
  ] as const) {
    const { addresses, podCidrs } = nodeOf(other)
    const routes = podCidrs.map((cidr) => `ip route add ${cidr} dev ${DEVICE}`)
    await shell(
      lab,
      node,
      `wg set ${DEVICE} peer ${key} allowed-ips ${podCidrs.join(',')} endpoint ${addresses[0]}:${PORT} && ${routes.join(' && ')}`,
    )
  }
}

/** @returns the public key. */
async function addDevice(lab: Lab, node: string, implementation: 'kernel' | 'wireguard-go'): Promise<string> {
  if (implementation === 'kernel') await shell(lab, node, `ip link add ${DEVICE} type wireguard`)
  // A session of its own, as ours has and any service: the kernel schedules by sessions, which costs some 8 % here.
  else await shell(lab, node, `setsid -w wireguard-go ${DEVICE} >/dev/null 2>&1`)
  const tries = READY_TIMEOUT_MS / 50
  await shell(
    lab,
    node,
    `for i in $(seq ${tries}); do wg show ${DEVICE} >/dev/null 2>&1 && exit 0; sleep 0.05; done; exit 1`,
  )
  const key = await shell(lab, node, 'wg genkey')
  await shell(
    lab,
    node,
    `cat > /run/fulmar/key && wg set ${DEVICE} private-key /run/fulmar/key listen-port ${PORT} && ip link set ${DEVICE} mtu ${DEVICE_MTU} up`,
    key,
  )
  return (await shell(lab, node, 'wg pubkey', key)).trim()
}

async function shell(lab: Lab, host: string, script: string, input = ''): Promise<string> {
  const { code, stdout, stderr } = await lab.exec(host, ['sh', '-c', script], { input })
  if (code !== 0) throw new Error(`${host}: ${script}: ${stderr.trim() || `ended with ${code}`}`)
  return stdout
}
