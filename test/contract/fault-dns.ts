// A DNS server that knows one name, as the cluster's own DNS in a pod. Arguments: the name, its IPv4 and its IPv6 address.

import { createSocket } from 'node:dgram'
import packet from 'dns-packet'

const [name, v4, v6] = process.argv.slice(2)
const socket = createSocket({ type: 'udp6', ipv6Only: false })
socket.on('message', (bytes, from) => {
  const { questions } = packet.decode(bytes)
  const [question] = questions
  const data = question?.name !== name ? undefined : question?.type === 'AAAA' ? v6 : v4
  const answers = data === undefined ? [] : [{ name: name!, type: question!.type as 'A', ttl: 5, data }]
  socket.send(
    packet.encode({ type: 'response', id: bytes.readUInt16BE(0), flags: 0x400, questions, answers }),
    from.port,
    from.address,
  )
})
socket.bind(53, '::', () => process.stdout.write('listening\n'))
process.stdin.on('end', () => process.exit()).resume()
