// Userspace proxies for the measured service: their configurations, and how they are started.

import { ENDPOINTS, PORTS, SERVICE, type PortName } from './cluster.ts'
import type { ProxyKind } from './kinds.ts'

export type Program = { readonly words: readonly string[]; readonly files: Readonly<Record<string, string>> }

const NAMES = Object.keys(PORTS) as readonly PortName[]

/** @param folder where its files will be. @param modules nginx's own folder of them; undefined where stream is built in. */
export function proxyProgram(kind: ProxyKind, folder: string, modules: string | undefined): Program {
  switch (kind) {
    case 'pipe':
      return { words: [process.execPath, `${import.meta.dirname}/pipe-proxy.ts`], files: {} }
    case 'haproxy':
      return { words: ['haproxy', '-db', '-f', `${folder}/haproxy.cfg`], files: { 'haproxy.cfg': haproxyText() } }
    case 'nginx':
      return {
        words: ['nginx', '-e', 'stderr', '-p', folder, '-c', 'nginx.conf'],
        files: { 'nginx.conf': nginxText(modules) },
      }
  }
}

const haproxyText = (): string => `global
  maxconn 4096
defaults
  mode tcp
  timeout connect 5s
  timeout client 1m
  timeout server 1m
${NAMES.map((name) => {
  const { service, endpoint } = PORTS[name]
  const servers = ENDPOINTS.map((address, i) => `  server e${i} ${address}:${endpoint}\n`)
  return `listen ${name}\n  bind ${SERVICE.clusterIp}:${service}\n  balance roundrobin\n${servers.join('')}`
}).join('')}`

const nginxText = (modules: string | undefined): string => `${
  modules === undefined ? '' : `load_module ${modules}/ngx_stream_module.so;\n`
}daemon off;
user root;
worker_processes auto;
error_log stderr crit;
pid nginx.pid;
events {
  worker_connections 4096;
}
stream {
${NAMES.map((name) => {
  const { service, endpoint } = PORTS[name]
  const servers = ENDPOINTS.map((address) => `    server ${address}:${endpoint};\n`).join('')
  return (
    `  upstream ${name} {\n${servers}  }\n` +
    `  server {\n    listen ${SERVICE.clusterIp}:${service};\n    proxy_pass ${name};\n  }\n`
  )
}).join('')}}
`
