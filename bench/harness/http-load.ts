// Load from a process of its own: HTTP calls one after the other, each over a connection of its own. One argument: the URL.
// Reads a number of calls per line from stdin and prints a JSON array of their milliseconds per line; ends with its stdin.

import { request } from 'node:http'
import { createInterface } from 'node:readline'

const url = process.argv[2] ?? ''
const TIMEOUT_MS = 5_000

function call(): Promise<number> {
  const start = performance.now()
  return new Promise((resolve, reject) => {
    const outgoing = request(url, { agent: false, timeout: TIMEOUT_MS }, (response) => {
      response.resume()
      response.once('error', reject)
      response.once('end', () => {
        if (response.statusCode === 200) resolve(performance.now() - start)
        else reject(new Error(`${url} answered ${response.statusCode}`))
      })
    })
    outgoing.once('timeout', () => outgoing.destroy(new Error(`${url}: no answer within ${TIMEOUT_MS} ms`)))
    outgoing.once('error', reject)
    outgoing.end()
  })
}

for await (const line of createInterface({ input: process.stdin })) {
  const latenciesMs: number[] = []
  for (let left = Number(line); left > 0; left--) latenciesMs.push(await call())
  process.stdout.write(`${JSON.stringify(latenciesMs)}\n`)
}
