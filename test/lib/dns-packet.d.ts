// The parts of dns-packet that tests use as another's codec; it brings no types of its own.

declare module 'dns-packet' {
  type Decoded = {
    readonly questions: readonly { readonly name: string; readonly type: string; readonly class: string }[]
    readonly answers: readonly { readonly name: string; readonly type: string }[]
    readonly additionals: readonly {
      readonly type: string
      readonly udpPayloadSize?: number
      readonly flag_do?: boolean
    }[]
    readonly flag_rd: boolean
    readonly flag_cd: boolean
  }
  const packet: {
    decode(bytes: Buffer): Decoded
    encode(message: object): Buffer
  }
  export default packet
}
