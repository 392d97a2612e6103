// kubectl cp, both ways, by checksums.

import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createReadStream, createWriteStream, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { brief, check, type Case } from './session.ts'

export const COPY: readonly Case[] = [
  {
    name: 'cp',
    perProtocol: true,
    run: async (session) => {
      const { pod, namespace, copyBytes, directory } = session.target
      const here = mkdtempSync(join(tmpdir(), 'fulmar-cp-'))
      const there = `${directory}/fulmar-cp-${randomBytes(6).toString('hex')}`
      try {
        const sum = await writeRandom(join(here, 'up'), copyBytes)
        const seconds: number[] = []
        const copy = async (from: string, to: string): Promise<void> => {
          const startedMs = performance.now()
          const { code, stderr } = await session.run(['cp', '-c', 'shell', from, to], { timeoutMs: 280_000 })
          check(code === 0, `cp ${from} ${to}: code ${code}, ${brief(stderr)}`)
          seconds.push((performance.now() - startedMs) / 1000)
        }
        await copy(join(here, 'up'), `${namespace}/${pod}:${there}`)
        const counted = await session.exec(['sha256sum', there])
        check(counted.stdout.toString().startsWith(sum), `other bytes in the pod: ${counted.stdout} ${counted.stderr}`)
        await copy(`${namespace}/${pod}:${there}`, join(here, 'down'))
        check((await sha256OfFile(join(here, 'down'))) === sum, 'other bytes came back')
        const rates = seconds.map((time) => `${(copyBytes / time / 2 ** 20).toFixed(0)} MiB/s`)
        return `${(copyBytes / 2 ** 20).toFixed(0)} MiB, up ${rates[0]}, down ${rates[1]}`
      } finally {
        rmSync(here, { recursive: true, force: true })
        await session.exec(['rm', '-f', there])
      }
    },
  },
]

export const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')

async function writeRandom(path: string, bytes: number): Promise<string> {
  const hash = createHash('sha256')
  const file = createWriteStream(path)
  const block = randomBytes(1 << 20)
  for (let left = bytes, index = 0; left > 0; left -= block.length, index++) {
    // Blocks that differ, so that one left out or twice is noticed.
    block.writeUInt32BE(index, 0)
    const part = Buffer.from(block.subarray(0, left))
    hash.update(part)
    if (!file.write(part)) await once(file, 'drain')
  }
  file.end()
  await once(file, 'close')
  return hash.digest('hex')
}

async function sha256OfFile(path: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) hash.update(chunk)
  return hash.digest('hex')
}
