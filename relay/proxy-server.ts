// The proxy into nodes on the relay's own port: CONNECT for Prometheus, metrics-server and `fulmar forward`, each for the
// nodes and targets that it was granted (ops-access.ts).

import { answerConnect, refuseConnect, type ConnectDial } from './connect-server.ts'
import type { Log } from '../lib/log.ts'
import { NodeDialError, type DialNode } from './node-dial.ts'
import { grantOf, type OpsUser } from './ops-access.ts'
import { proxyTargetOf } from './proxy-route.ts'
import type { Connect } from './tls-server.ts'

export type ProxyOptions = {
  /** As they are now. */
  readonly users: () => readonly OpsUser[]
  /** The node that a name or an address stands for; undefined for none. */
  readonly nodeOf: (host: string) => string | undefined
  readonly dial: DialNode
  readonly log: Log
}

const AUTHENTICATE = 'proxy-authenticate: Bearer\r\nproxy-authenticate: Basic realm="fulmar"\r\n'

export function createProxy({ users, nodeOf, dial, log }: ProxyOptions): Connect {
  return (request, stream, head, caller) => {
    const grant = grantOf(caller, request.headers['proxy-authorization'], users())
    if (grant === undefined) return refuseConnect(stream, 407, 'Proxy Authentication Required', AUTHENTICATE)
    const { user, mayDial } = grant
    const dialTarget: ConnectDial = async (host, port, signal) => {
      const target = proxyTargetOf(host, port, nodeOf)
      if (target === undefined && grant.all) throw new NodeDialError('offline', `the relay knows no node ${host}`)
      // The same words for both, or the answer would tell which nodes there are.
      if (target === undefined || !mayDial(target))
        throw new NodeDialError('refused', `${user} may not reach ${host}:${port}`)
      return dial(target.node, target, signal)
    }
    answerConnect({ caller: user, dial: dialTarget, log }, request, stream, head)
  }
}
