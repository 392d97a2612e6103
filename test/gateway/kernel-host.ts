// One host of the tests of WireGuard devices and routes: opens what it is told to and passes calls on.

import { createLeaveDevice, type LeaveDevice } from '../../gateway/leave-device-loop.ts'
import { openRoutes, type RoutesOfNode, type RoutesOptions } from '../../gateway/routes-loop.ts'
import { openWireGuard, type WireGuard, type WireGuardOptions } from '../../gateway/wireguard-loop.ts'
import type { WireGuardPeer } from '../../gateway/wireguard.ts'
import { runRoutes, type AgentRoutes } from '../../agent/routes-loop.ts'
import { createLog } from '../../lib/log.ts'
import { VXLAN_ID, VXLAN_PORT } from '../../lib/owned.ts'
import { removeOwned } from '../../lib/net/remove-owned.ts'
import { serve } from '../lib/netns.ts'

const log = createLog('test', process.env['TEST_LOG_LEVEL'] ?? 'silent')
const { signal } = new AbortController()
let wireguard: WireGuard
let routes: RoutesOfNode
let agent: AgentRoutes
let leave: LeaveDevice | undefined
let leavePeers: readonly WireGuardPeer[] = []

serve({
  async openWireGuard(options: Omit<WireGuardOptions, 'log'>) {
    const start = performance.now()
    wireguard = await openWireGuard({ ...options, log }, signal)
    return { implementation: wireguard.implementation, ms: performance.now() - start }
  },
  setPeers: (...args: Parameters<WireGuard['setPeers']>) => wireguard.setPeers(...args),
  setEndpoint: (...args: Parameters<WireGuard['setEndpoint']>) => wireguard.setEndpoint(...args),
  setPort: (...args: Parameters<WireGuard['setPort']>) => wireguard.setPort(...args),
  observePeers: (...args: Parameters<WireGuard['observe']>) => wireguard.observe(...args),
  /** Makes fm-leave with these peers, or removes it where there are none. @returns its port. */
  async setLeavePeers(options: Omit<WireGuardOptions, 'log' | 'devices'>, peers: readonly WireGuardPeer[]) {
    leavePeers = peers
    leave ??= createLeaveDevice(
      {
        open: (port, signal) => openWireGuard({ ...options, devices: [{ rung: 'leave', port }], log }, signal),
        peers: () => leavePeers,
        log,
      },
      signal,
    )
    await leave.apply()
    return leave.port()
  },
  async openRoutes(options: Omit<RoutesOptions, 'log'>) {
    routes = await openRoutes({ ...options, log }, signal)
  },
  apply: (...args: Parameters<RoutesOfNode['apply']>) => routes.apply(...args),
  async move(...args: Parameters<RoutesOfNode['move']>) {
    const start = performance.now()
    await routes.move(...args)
    return performance.now() - start
  },
  observeRungs: async (pools: string[]) => Object.fromEntries(await routes.observe(pools)),
  isOverruled: () => routes.isOverruled(),
  overrule: () => routes.overrule(),
  async openAgent() {
    agent = await runRoutes({ overlay: { port: VXLAN_PORT, id: VXLAN_ID }, log }, signal)
  },
  updateAgent: (...args: Parameters<AgentRoutes['update']>) => agent.update(...args),
  agentPlan: () => agent.plan,
  removeOwned,
})
