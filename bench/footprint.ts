// What does Fulmar weigh on a node? A lab of the cloud and one site with a node, daemons only: memory of agent, gateway and
// wireguard-go when nothing happens, without services and with a thousand; and the size of the image's files.

import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { imageRoot } from '../test/lab/image.ts'
import { openLab, type Lab } from '../test/lab/lab.ts'
import { onlyNodeOf, writeSites } from './harness/daemons-only.ts'
import type { Finding } from './harness/findings.ts'
import { bytesTogether, memoryOf, wireguardGoOf, type Memory } from './harness/memory.ts'
import type { Study, StudyOptions, StudyReport } from './harness/question.ts'

const SITE = 's1'
const NODE = onlyNodeOf(SITE)
const SERVICES = 1_000
const ENDPOINTS = 2
/** After a list, memory is given back within seconds. */
const SETTLE_MS = 30_000
const LISTED_WITHIN_MS = 60_000
/** Of a node with 512 MB, of which the kernel, a kubelet and a runtime take some 300. */
const BOTH_MAX_MB = 200

export const question: Study = {
  kind: 'study',
  text: 'What do an agent and a gateway weigh on a node?',
  rounds: 1,
  run,
}

async function run({ progress, signal }: StudyOptions): Promise<StudyReport> {
  const manifests = writeSites([SITE], ['Pod', 'Service', 'EndpointSlice'])
  try {
    await using lab = await openLab({ id: 'benchfoot', manifests }, { signal, progress })
    await pause(SETTLE_MS, undefined, { signal })
    const idle = weigh(lab)
    progress(`idle: ${textOf(idle)}`)
    writeFileSync(join(manifests, 'services.yaml'), manyServices())
    await listed(lab, signal)
    await pause(SETTLE_MS, undefined, { signal })
    const loaded = weigh(lab)
    progress(`${SERVICES} services: ${textOf(loaded)}`)
    const image = await imageRoot()
    const files = (name: string, title: string, folder: string): Finding => ({
      name,
      title,
      unit: 'MB',
      value: sizeOf(join(image, folder)) / MB,
    })
    return {
      findings: [
        ...findingsOf('idle', 'no services', idle),
        ...findingsOf('loaded', `${SERVICES} services`, loaded),
        files('imageNode', 'image: node', 'usr/local/bin/node'),
        files('imageFulmar', 'image: Fulmar and its npm packages', 'opt/fulmar'),
      ],
      notes: [
        'resident: what it takes on a machine where no other process has the same files open (there PSS is the same); together: what both map counts once',
        `${SERVICES} Services with ${ENDPOINTS} endpoints each; measured ${SETTLE_MS / 1000} s after the last change`,
      ],
    }
  } finally {
    rmSync(manifests, { recursive: true })
  }
}

type Weights = { readonly agent: Memory; readonly gateway: Memory; readonly wireguardGo: readonly Memory[] }

function weigh(lab: Lab): Weights {
  const of = (pid: number): Memory => memoryOf(readFileSync(`/proc/${pid}/smaps`, 'utf8'))
  const [agent, gateway] = [lab.pidOf(NODE, 'agent')!, lab.pidOf(NODE, 'gateway')!]
  return { agent: of(agent), gateway: of(gateway), wireguardGo: wireguardGoOf([gateway]).map(of) }
}

const MB = 1e6
const textOf = ({ agent, gateway, wireguardGo }: Weights): string =>
  `agent ${Math.round(agent.anonBytes / MB)} MB anonymous, gateway ${Math.round(gateway.anonBytes / MB)}, both ${Math.round(bytesTogether([agent, gateway]) / MB)} resident, ${wireguardGo.length} wireguard-go ${Math.round(bytesTogether(wireguardGo) / MB)}`

function findingsOf(name: string, what: string, { agent, gateway, wireguardGo }: Weights): readonly Finding[] {
  const mb = (key: string, title: string, bytes: number): Finding => ({
    name: `${name}${key}`,
    title: `${what}: ${title}`,
    unit: 'MB',
    value: bytes / MB,
  })
  return [
    mb('AgentAnon', 'agent, RssAnon', agent.anonBytes),
    mb('Agent', 'agent, resident', bytesTogether([agent])),
    mb('GatewayAnon', 'gateway, RssAnon', gateway.anonBytes),
    mb('Gateway', 'gateway, resident', bytesTogether([gateway])),
    {
      ...mb('Both', 'both together, resident', bytesTogether([agent, gateway])),
      bound: { of: 'value', is: 'at most', limit: BOTH_MAX_MB },
    },
    mb('WireGuardGo', `${wireguardGo.length} wireguard-go together, resident`, bytesTogether(wireguardGo)),
  ]
}

const clusterIpOf = (service: number): string => `10.100.${Math.floor(service / 250)}.${(service % 250) + 1}`

function manyServices(): string {
  const documents = Array.from({ length: SERVICES }, (_, i) => {
    const metadata = { name: `svc-${i}`, namespace: 'many' }
    const clusterIP = clusterIpOf(i)
    const ports = [{ name: 'http', port: 80, protocol: 'TCP' }]
    const endpoints = Array.from({ length: ENDPOINTS }, (__, k) => ({
      addresses: [`10.244.${k}.${(i % 250) + 2}`],
      nodeName: k === 0 ? 'cloud' : NODE,
      conditions: { ready: true },
    }))
    return [
      { apiVersion: 'v1', kind: 'Service', metadata, spec: { clusterIP, clusterIPs: [clusterIP], ports } },
      {
        apiVersion: 'discovery.k8s.io/v1',
        kind: 'EndpointSlice',
        metadata: { ...metadata, labels: { 'kubernetes.io/service-name': metadata.name } },
        addressType: 'IPv4',
        ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
        endpoints,
      },
    ]
  }).flat()
  return documents.map((document) => `${JSON.stringify(document)}\n`).join('---\n')
}

/** @throws Error where the agent does not know them in time. */
async function listed(lab: Lab, signal: AbortSignal): Promise<void> {
  for (const end = performance.now() + LISTED_WITHIN_MS; performance.now() < end;) {
    const { stdout } = await lab.exec(NODE, ['nft', 'list', 'table', 'ip', 'fulmar'])
    if (stdout.includes(clusterIpOf(SERVICES - 1))) return
    await pause(1_000, undefined, { signal })
  }
  throw new Error(`the agent of ${NODE} has not loaded ${SERVICES} services within ${LISTED_WITHIN_MS / 1000} s`)
}

function sizeOf(path: string): number {
  const stat = statSync(path)
  if (!stat.isDirectory()) return stat.size
  return readdirSync(path, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() || entry.isFile())
    .reduce((sum, entry) => sum + sizeOf(join(path, entry.name)), 0)
}
