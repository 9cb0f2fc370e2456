/** What a network counts, by reason; the set is fixed, whatever a guest sends. */
const REASONS = [
	"framesReceived",
	"framesSent",
	// Dropped: malformed
	"longFrame",
	"badEthernet",
	"badSourceMac",
	"badArp",
	"badIpv4",
	"badIcmp",
	"badUdp",
	"badTcp",
	"badDhcp",
	// Dropped: not for the relay
	"otherMac",
	"multicast",
	"broadcast",
	"ipv6",
	"otherEtherType",
	"otherSource",
	"otherProtocol",
	"hairpin",
	"timeToLive",
	"strayTcp",
	"unansweredIcmp",
	"unansweredDhcp",
	"unansweredArp",
	// Refused by the policy
	"deniedTcp",
	"deniedUdp",
	"deniedIcmp",
	// Over a limit
	"tcpFlowLimit",
	"udpMappingLimit",
	"udpPeerLimit",
	"pingLimit",
	"dnsLimit",
	"icmpErrorLimit",
	"overBandwidth",
	"overQuota",
	"linkFull",
	"guestUnknown",
	"unexpectedUdp",
	"failedUdp",
] as const;

export type CounterName = (typeof REASONS)[number];
export type Counters = Record<CounterName, number>;

export function createCounters(): Counters {
	return Object.fromEntries(REASONS.map((reason) => [reason, 0])) as Counters;
}
