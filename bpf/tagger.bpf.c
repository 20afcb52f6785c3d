/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * For tests, on kernels without VLAN devices (CONFIG_VLAN_8021Q): what such a device does, done by
 * tc programs on the interface below. Sent frames get the tag, beside the frame, as a device would
 * leave it to hardware; received ones lose it, and those without it are dropped. Rebuild with
 * scripts/bpf.sh.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#define SEC(name) __attribute__((section(name), used))

#define VLAN 100

static long (*const bpf_skb_vlan_push)(struct __sk_buff *frame, __u16 type, __u16 tci) =
	(void *)BPF_FUNC_skb_vlan_push;
static long (*const bpf_skb_vlan_pop)(struct __sk_buff *frame) = (void *)BPF_FUNC_skb_vlan_pop;

SEC("tc") int sent(struct __sk_buff *frame)
{
	/* 0x8100 in network order, whichever order this machine has. */
	const union {
		__u8 bytes[2];
		__u16 type;
	} type = {{0x81, 0x00}};

	return bpf_skb_vlan_push(frame, type.type, VLAN) ? TC_ACT_SHOT : TC_ACT_OK;
}

SEC("tc") int received(struct __sk_buff *frame)
{
	if (!frame->vlan_present || (frame->vlan_tci & 0xfff) != VLAN)
		return TC_ACT_SHOT;
	return bpf_skb_vlan_pop(frame) ? TC_ACT_SHOT : TC_ACT_OK;
}

char license_text[] SEC("license") = "Dual MIT/GPL";
const char source_hash[] SEC("source") = SOURCE_SHA256;
