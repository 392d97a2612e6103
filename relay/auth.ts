export * from '../lib/identity.ts'
