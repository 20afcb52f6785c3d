/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The steering program: hands the frames that are ours to the AF_XDP socket of the queue they
 * arrived on, and passes everything else to the kernel as if it were not there.
 *
 * Ours is, on our VLAN: IPv4 to our own addresses, whatever the protocol, and ARP about them; and,
 * on addresses that the kernel owns and shares with us, TCP to our ports only. A frame too short
 * to tell is the kernel's. So is every frame of a queue that has no socket: the redirect falls back
 * to XDP_PASS.
 *
 * What is ours is written into .rodata and .bss before the program is loaded (the other end of this
 * layout is src/device/steering.rs), so the verifier knows the counts and drops the search steps
 * that a short table does not need.
 *
 * Needs no header but the kernel's own. Rebuild with scripts/bpf.sh and commit the object.
 */
#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))
#define inline __attribute__((always_inline)) inline

#define QUEUES_MAX 256
#define RANGES_MAX 16384 /* a power of two; thousands of single addresses fit */

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define be16(value) __builtin_bswap16(value)
#define be32(value) __builtin_bswap32(value)
#else
#define be16(value) (value)
#define be32(value) (value)
#endif

/* All numbers in host order. */
struct range {
	__u32 first;
	__u32 last;
};

const volatile struct {
	__u32 ours;   /* ranges in use */
	__u32 shared; /* ranges in use */
	__u32 vlan;   /* 0: untagged */
} config SEC(".rodata");

struct {
	struct range ours[RANGES_MAX];   /* sorted, disjoint */
	struct range shared[RANGES_MAX]; /* sorted, disjoint */
	__u64 ports[65536 / 64];         /* one bit a port, for the shared addresses */
	__u32 zero;                      /* always 0, but the verifier does not know */
} tables SEC(".bss");

struct {
	int (*type)[BPF_MAP_TYPE_XSKMAP];
	__u32 *key;
	__u32 *value;
	int (*max_entries)[QUEUES_MAX];
} sockets SEC(".maps");

struct ethernet {
	__u8 dst[6], src[6];
	__u16 type;
} __attribute__((packed));

struct tag {
	__u16 tci, type;
} __attribute__((packed));

struct arp {
	__u16 hardware, protocol;
	__u8 hardware_bytes, protocol_bytes;
	__u16 operation;
	__u8 sender_mac[6];
	__u32 sender;
	__u8 target_mac[6];
	__u32 target;
} __attribute__((packed));

struct ipv4 {
	__u8 version_ihl, tos;
	__u16 length, id, fragment;
	__u8 ttl, protocol;
	__u16 checksum;
	__u32 src, dst;
} __attribute__((packed));

struct ports {
	__u16 src, dst;
} __attribute__((packed));

static long (*const bpf_redirect_map)(void *map, __u64 key, __u64 flags) =
	(void *)BPF_FUNC_redirect_map;

/* Binary search in sorted disjoint ranges. The position starts from a value the verifier does not
 * know: it then checks each step once, instead of once for every position the steps before could
 * have led to. */
static inline int contains(const struct range *ranges, __u32 count, __u32 addr)
{
	__u32 at = tables.zero & (RANGES_MAX - 1);

	if (count == 0)
		return 0;
#pragma clang loop unroll(full)
	for (__u32 step = RANGES_MAX / 2; step > 0; step /= 2) {
		if (count > step) {
			__u32 next = (at + step) & (RANGES_MAX - 1);
			if (next < count && ranges[next].first <= addr)
				at = next;
		}
	}
	return ranges[at].first <= addr && addr <= ranges[at].last;
}

static inline int arp_is_ours(const struct arp *arp, const void *end)
{
	if ((const void *)(arp + 1) > end)
		return 0;
	/* The sender too: someone else claiming our address is our business. */
	return contains(tables.ours, config.ours, be32(arp->target)) ||
	       contains(tables.ours, config.ours, be32(arp->sender));
}

static inline int ipv4_is_ours(const struct ipv4 *ip, const void *end)
{
	const struct ports *ports;
	__u32 dst, header_bytes, port;

	if ((const void *)(ip + 1) > end)
		return 0;
	dst = be32(ip->dst);
	if (contains(tables.ours, config.ours, dst))
		return 1;
	if (config.shared == 0 || ip->protocol != 6)
		return 0;
	/* Fragments after the first have no ports: the kernel reassembles what is to its address. */
	if (ip->fragment & be16(0x3fff))
		return 0;
	header_bytes = (ip->version_ihl & 15) * 4;
	if (header_bytes < sizeof(*ip))
		return 0;
	ports = (const void *)ip + header_bytes;
	if ((const void *)(ports + 1) > end)
		return 0;
	port = be16(ports->dst);
	return (tables.ports[port / 64] >> (port % 64) & 1) &&
	       contains(tables.shared, config.shared, dst);
}

SEC("xdp") int steer(struct xdp_md *frame)
{
	const void *at = (const void *)(long)frame->data, *end = (const void *)(long)frame->data_end;
	const struct ethernet *ethernet = at;
	__u32 vlan = 0, ours = 0;
	__u16 type;

	at = ethernet + 1;
	if (at > end)
		return XDP_PASS;
	type = ethernet->type;
	if (type == be16(0x8100)) {
		const struct tag *tag = at;
		at = tag + 1;
		if (at > end)
			return XDP_PASS;
		vlan = be16(tag->tci) & 0xfff;
		type = tag->type;
	}
	if (vlan != config.vlan)
		return XDP_PASS;
	if (type == be16(0x0800))
		ours = ipv4_is_ours(at, end);
	else if (type == be16(0x0806))
		ours = arp_is_ours(at, end);
	return ours ? bpf_redirect_map(&sockets, frame->rx_queue_index, XDP_PASS) : XDP_PASS;
}

/* The kernel lends some helpers to GPL programs only. None of those is used; still, the label must
 * be one it knows. */
char license_text[] SEC("license") = "Dual MIT/GPL";
const char source_hash[] SEC("source") = SOURCE_SHA256;
