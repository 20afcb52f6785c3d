//! The far end of a lab on VLAN 100 too, by a VLAN device of the kernel or what stands in for it.

use super::{End, Lab, say};
use libbpf_rs::{ObjectBuilder, TC_EGRESS, TC_INGRESS, TcHookBuilder};
use shakedown::sys::net::Interface;
use std::os::fd::AsFd;

/// The tc programs that stand in for a VLAN device: `bpf/tagger.bpf.c`.
pub const TAGGER: &[u8] = include_bytes!("../../bpf/tagger.bpf.o");

/// The tag.
pub const VLAN: u16 = 100;

/// The kernel's addresses at the far end, on the VLAN.
pub const FAR_ADDR: &str = "10.98.0.2";
pub const FAR_ADDR6: &str = "fd98::2";

impl Lab {
    /// Puts the far end's kernel on the VLAN, where it has `FAR_ADDR` and `FAR_ADDR6`. A kernel
    /// without VLAN devices tags everything that the far end sends, and takes nothing untagged.
    pub fn far_on_vlan(&self) {
        let device = format!("far0.{VLAN}");
        let vlan = VLAN.to_string();
        let made = self
            .command(End::Far, "ip")
            .args(["link", "add", "link", "far0", "name", &device])
            .args(["type", "vlan", "id", &vlan])
            .output()
            .unwrap();
        let device = if made.status.success() {
            &device
        } else {
            say("VLAN: this kernel has no VLAN devices; tc programs on the far end stand in");
            self.inside(End::Far, tag_everything);
            "far0"
        };
        self.ip(End::Far, &["addr", "add", &format!("{FAR_ADDR}/24"), "dev", device]);
        self.ip(End::Far, &["addr", "add", &format!("{FAR_ADDR6}/64"), "dev", device, "nodad"]);
        self.ip(End::Far, &["link", "set", device, "up"]);
    }
}

fn tag_everything() {
    // It warns of sections that are not its own.
    libbpf_rs::set_print(None);
    let object = ObjectBuilder::default().open_memory(TAGGER).unwrap().load().unwrap();
    let index = Interface::find("far0").unwrap().index as i32;
    for (name, point) in [("sent", TC_EGRESS), ("received", TC_INGRESS)] {
        let program = object.progs().find(|program| program.name() == name).unwrap();
        let mut builder = TcHookBuilder::new(program.as_fd());
        let mut hook = builder.ifindex(index).replace(true).handle(1).priority(1).hook(point);
        hook.create().unwrap();
        // It stays attached without us, and goes with the interface.
        hook.attach().unwrap();
    }
}
