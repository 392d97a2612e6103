// All kinds of what the chart renders, tried at an API by a server-side dry run of kubectl.

import type { Test } from 'tap'
import { template, VALUES } from '../lab/helm.ts'

/** @param joining what it renders for pods that join by tokens. @param apply YAML, tried only; what kubectl says of it. */
export async function allTaken(t: Test, joining: string, apply: (yaml: string) => Promise<string>): Promise<void> {
  const rendered = [
    ['the default', await template()],
    ...(await Promise.all(VALUES.map(async (file) => [file, await template('--values', file)] as const))),
    ['with wireguard-go', await template('--set', 'wireguardGo.enabled=true')],
    ['what cleans', await template('--set', 'cleanup.enabled=true')],
    ['pods that join', joining],
  ] as const
  for (const [name, yaml] of rendered) {
    const answer = await apply(yaml)
    const objects = yaml.match(/^kind: /gm)?.length ?? 0
    t.equal(answer.match(/ serverside-applied \(server dry run\)$/gm)?.length, objects, `${name}: ${objects} objects`)
  }
}
