// What kubectl shows of a node itself: its kubelet's pages, through the API and through kubectl proxy, and top.

import { bytesOf, check, reader, stopper, type Case } from './session.ts'

export const NODE: readonly Case[] = [
  {
    name: 'get --raw nodes/proxy',
    perProtocol: false,
    run: async (session) => {
      const raw = (path: string) => ['get', '--raw', `/api/v1/nodes/${session.target.node}/proxy${path}`]
      await session.expect(raw('/metrics'), new RegExp(`kubelet_node_name\\{node="${session.target.node}"\\} 1`))
      await session.expect(raw('/metrics/resource'), /^node_cpu_usage_seconds_total [\d.e+-]+ \d+$/m)
      const pods = await session.expect(raw('/pods'), /^\{"kind":"PodList"/)
      const { items } = JSON.parse(pods) as { items: { spec: { nodeName: string } }[] }
      check(
        items.length > 0 && items.every(({ spec }) => spec.nodeName === session.target.node),
        'pods of another node',
      )
      return '/metrics, /metrics/resource and /pods of the node itself'
    },
  },
  {
    name: 'proxy',
    perProtocol: false,
    run: async (session) => {
      const args = ['proxy', '--port=0']
      const child = session.start(...args)
      const stop = stopper(child)
      try {
        const [, port] = await reader(child.stdout!, args).until(/Starting to serve on 127\.0\.0\.1:(\d+)/)
        const path = `/api/v1/nodes/${session.target.node}/proxy/stats/summary`
        const bytes = await bytesOf(await session.kubectl.connect(Number(port)), path)
        return `/stats/summary, ${bytes} bytes`
      } finally {
        await stop()
      }
    },
  },
  {
    name: 'top',
    perProtocol: false,
    run: async (session) => {
      const { node, pod, namespace } = session.target
      await session.expect(
        ['top', 'node', node, '--no-headers'],
        new RegExp(`^${node} +\\d+m +\\d+% +\\d+Mi +\\d+% *\n$`),
      )
      await session.expect(
        ['top', 'pod', '-n', namespace, pod, '--no-headers'],
        new RegExp(`^${pod} +\\d+m +\\d+Mi *\n$`),
      )
      return 'node and pod'
    },
  },
]
