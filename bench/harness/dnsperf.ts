// dnsperf of Debian: as many questions as a server answers, or so many a second with the time that each took.

import { execFile } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { promisify } from 'node:util'
import { percentile } from './statistics.ts'

const run = promisify(execFile)
const CLIENTS = 8
const OUTSTANDING = 100
const OUTPUT_BYTES_MAX = 64 << 20

export type DnsLoad = {
  readonly port: number
  readonly pid: number
  /** A file of questions, `NAME TYPE` a line. */
  readonly questions: string
  readonly seconds: number
}
export type DnsThroughput = {
  readonly perSecond: number
  /** Per second of the server's CPU time. */
  readonly perCoreSecond: number
  readonly lost: number
}

/** @param option an EDNS option that is sent with each, such as `65001:00`. */
export async function throughput(load: DnsLoad, option?: string): Promise<DnsThroughput> {
  const cpuBefore = threadsCpuMs(load.pid)
  const more = option === undefined ? [] : ['-E', option]
  const text = await dnsperf(load, ['-c', String(CLIENTS), '-q', String(OUTSTANDING), ...more])
  const cpuMs = threadsCpuMs(load.pid) - cpuBefore
  const completed = figure(text, /Queries completed:\s+(\d+)/)
  return {
    perSecond: figure(text, /Queries per second:\s+([\d.]+)/),
    perCoreSecond: completed / (cpuMs / 1000),
    lost: figure(text, /Queries lost:\s+(\d+)/),
  }
}

/** @returns milliseconds. */
export async function latencies(
  load: DnsLoad,
  perSecond: number,
): Promise<{ readonly p50: number; readonly p99: number }> {
  const text = await dnsperf(load, ['-Q', String(perSecond), '-v'])
  const all = [...text.matchAll(/^> \w+ \S+ \S+ ([\d.]+)$/gm)].map(([, seconds]) => Number(seconds) * 1000)
  return { p50: percentile(all, 0.5), p99: percentile(all, 0.99) }
}

async function dnsperf({ port, questions, seconds }: DnsLoad, words: readonly string[]): Promise<string> {
  const all = ['-s', '127.0.0.1', '-p', String(port), '-d', questions, '-l', String(seconds), ...words]
  return (await run('dnsperf', all, { maxBuffer: OUTPUT_BYTES_MAX })).stdout
}

function figure(text: string, pattern: RegExp): number {
  const found = pattern.exec(text)?.[1]
  if (found === undefined) throw new Error(`dnsperf said no ${pattern.source}: ${text.slice(-500)}`)
  return Number(found)
}

/** CPU time of all threads of a process that live, to the nanosecond. */
function threadsCpuMs(pid: number): number {
  const threads = readdirSync(`/proc/${pid}/task`)
  const ns = threads.map((tid) => Number(readFileSync(`/proc/${pid}/task/${tid}/schedstat`, 'utf8').split(' ')[0]))
  return ns.reduce((sum, each) => sum + each, 0) / 1e6
}
