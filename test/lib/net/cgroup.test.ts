// Control groups as systemd and container runtimes name them, and a wireguard-go that outlives one.

import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { isOfService, removeGroupOutside } from '../../../lib/net/cgroup.ts'
import { cgroupRoot } from '../../lab/machine.ts'
import { createHost, isRoot, until } from '../netns.ts'

t.test('groups that end as one', async (t) => {
  const rows: readonly [string, boolean][] = [
    ['/', false],
    ['/fm-lab/north1', false],
    ['/system.slice/fulmar-gateway.service', true],
    ['/system.slice/fulmar-gateway.service/inner', true],
    ['/user.slice/user-0.slice/session-3.scope', true],
    ['/kubepods.slice/kubepods-pod1.slice/cri-containerd-2.scope', true],
    ['/kubepods/burstable/pod1/2', true],
    ['/docker/3', true],
  ]
  for (const [group, ends] of rows) t.equal(isOfService(group), ends, group)
})

t.test('wireguard-go outlives the service', { skip: isRoot ? false : 'needs root' }, async (t) => {
  const group = join(cgroupRoot(), `fulmar-test-${process.pid}.service`)
  mkdirSync(group)
  t.teardown(() => until('the group is empty', 2_000, async () => emptied(group)))
  const host = await createHost()
  t.teardown(() => host.close())
  const module = join(import.meta.dirname, '../../../lib/net/wireguard.ts')
  const service = `import { startWireGuardGo } from '${module}'; await startWireGuardGo('fm-direct'); process.kill(process.pid, 'SIGSTOP')`
  const started = host.sh(
    `echo 0 >${group}/cgroup.procs && exec ${process.execPath} --input-type=module-typescript --eval "${service}"`,
  )
  const answers = () =>
    host.sh('wg show fm-direct').then(
      () => true,
      () => false,
    )
  await until('the device answers', 5_000, answers)
  writeFileSync(join(group, 'cgroup.kill'), '1')
  await t.rejects(started, 'the service is killed')
  t.ok(await answers(), 'its wireguard-go goes on')
  const [, pid] = /wireguard-go.*?pid=(\d+)/.exec(await host.sh('ss -xlpH'))!
  t.match(readFileSync(`/proc/${pid}/cgroup`, 'utf8'), /^0::\/fulmar-wireguard-go$/m)
  t.match(readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ')[16], '-10', 'before pods')
  if (existsSync(`/proc/${pid}/autogroup`))
    t.match(readFileSync(`/proc/${pid}/autogroup`, 'utf8'), / nice -10$/m, 'in sessions too')
  const folder = join(cgroupRoot(), 'fulmar-wireguard-go')
  t.strictSame(await removeGroupOutside(), { folder, processes: [Number(pid)] }, 'its group stays while it runs')
  await host.sh('ip link del fm-direct')
  t.strictSame(await removeGroupOutside(), { folder, processes: [] }, 'and goes once it is gone')
  t.equal(await removeGroupOutside(), undefined, 'and only once')
})

function emptied(group: string): boolean {
  try {
    rmdirSync(group)
  } catch {}
  return !existsSync(group)
}
