// Where this checkout has what a lab runs.

import { resolve } from 'node:path'

export const REPOSITORY = resolve(import.meta.dirname, '../..')
export const FULMAR = `${REPOSITORY}/cli/main.ts`
export const POD_SERVER = `${import.meta.dirname}/pod-server.ts`
export const KUBELETS = `${import.meta.dirname}/kubelet/main.ts`
export const SHOP = `${import.meta.dirname}/shop`
/** Compiled JavaScript by content, shared by all of a checkout's processes: a daemon starts in half the time. */
export const COMPILE_CACHE = `${REPOSITORY}/node_modules/.cache/fulmar/compile`
