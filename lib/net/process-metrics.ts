// What every daemon tells of its own process, read from the kernel at scrape time: no timer, no histogram of garbage
// collections. Names as in every other Prometheus client.

import { readdirSync } from 'node:fs'
import { counterFrom, gaugeFrom, type Registry } from '../metrics.ts'

export function addProcessMetrics(registry: Registry): void {
  const startedAt = Date.now() / 1000 - process.uptime()
  counterFrom(registry, 'process_cpu_seconds_total', 'User and system CPU time', () => {
    const { user, system } = process.cpuUsage()
    return (user + system) / 1e6
  })
  gaugeFrom(registry, 'process_resident_memory_bytes', 'Resident memory', () => process.memoryUsage.rss())
  gaugeFrom(registry, 'process_start_time_seconds', 'Start of the process, in Unix time', () => startedAt)
  gaugeFrom(registry, 'process_open_fds', 'Open file descriptors', () => readdirSync('/proc/self/fd').length)
}
