//! Which system calls a container may make. The rules are data: `seccomp.json`, with their origin and date.
//!
//! Names that a runtime's libseccomp does not know are left out by it. A call newer than any that libseccomp knows gets ENOSYS from runc, so that
//! C libraries fall back.
//!
//! **Arguments.** A filter sees 64 bits of each argument. The kernel takes an `int` from most of them and drops the rest, so a rule that compares
//! 64 bits ("any family but 40") lets `1 << 32 | 40` through. Every rule therefore compares the low 32 bits alone (`SCMP_CMP_MASKED_EQ`), and allows
//! listed values instead of refusing listed ones. Where only one value must be refused, there is a rule for each of its bits that allows the call if
//! that bit differs.
//!
//! **Calling conventions.** 32-bit programs may run. Their `socketcall` takes its arguments from memory, where a filter cannot look: it is refused, so
//! that C libraries fall back to `socket`. musl does; glibc for i386 does not, and has no sockets in a container. The x32 convention is not in
//! the list of architectures: the runtime's filter kills a process that uses it.

use super::built::built;
use crate::error::{Error, Result};
use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompBuilder, LinuxSyscall};
use serde::Deserialize;
use std::collections::BTreeMap;

const PROFILE: &str = include_str!("seccomp.json");

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: LinuxSeccompAction,
    default_errno_ret: u32,
    /// The calling conventions that a processor has, by its name in Rust.
    architectures: BTreeMap<String, Vec<Arch>>,
    syscalls: Vec<Rule>,
}

/// A rule as the OCI has it.
#[derive(Deserialize)]
struct Rule {
    /// The processor that it is for; `None`: all.
    arch: Option<String>,
    #[serde(flatten)]
    rule: LinuxSyscall,
}

/// The profile for containers on this processor.
pub(crate) fn profile() -> Result<LinuxSeccomp> {
    profile_for(std::env::consts::ARCH)
}

/// For an unknown processor: without calling conventions, so that the runtime takes those of the processor it runs on.
fn profile_for(arch: &str) -> Result<LinuxSeccomp> {
    let mut profile: Profile = serde_json::from_str(PROFILE).map_err(|e| Error::internal(format!("seccomp.json cannot be read: {e}")))?;
    let rules = profile.syscalls.into_iter().filter(|r| r.arch.as_deref().is_none_or(|a| a == arch)).map(|r| r.rule);
    built(
        LinuxSeccompBuilder::default()
            .default_action(profile.default_action)
            .default_errno_ret(profile.default_errno_ret)
            .architectures(profile.architectures.remove(arch).unwrap_or_default())
            .syscalls(rules.collect::<Vec<_>>())
            .build(),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use oci_spec::runtime::{LinuxSeccompArg, LinuxSeccompOperator};
    use proptest::prelude::*;

    fn matches(arg: &LinuxSeccompArg, args: &[u64]) -> bool {
        assert_eq!(arg.op(), LinuxSeccompOperator::ScmpCmpMaskedEq, "the other operators compare 64 bits");
        args[arg.index()] & arg.value() == arg.value_two().unwrap()
    }

    /// What the profile does with a call, as the kernel applies it.
    fn decide(profile: &LinuxSeccomp, call: &str, args: &[u64]) -> (LinuxSeccompAction, Option<u32>) {
        let rules = profile.syscalls().as_ref().unwrap().iter().filter(|r| r.names().iter().any(|n| n == call));
        let mut matching = rules.filter(|r| r.args().iter().flatten().all(|a| matches(a, args)));
        matching.next().map_or((profile.default_action(), profile.default_errno_ret()), |r| (r.action(), r.errno_ret()))
    }

    fn allows(call: &str, args: &[u64]) -> bool {
        decide(&profile_for("x86_64").unwrap(), call, args).0 == LinuxSeccompAction::ScmpActAllow
    }

    #[test]
    fn each_call_is_named_once_and_the_dangerous_ones_never() {
        let profile = profile_for("x86_64").unwrap();
        let unconditional = profile.syscalls().as_ref().unwrap().iter().filter(|r| r.args().is_none() && r.action() == LinuxSeccompAction::ScmpActAllow);
        let mut names: Vec<&String> = unconditional.flat_map(LinuxSyscall::names).collect();
        let n = names.len();
        names.sort_unstable();
        names.dedup();
        assert!(n > 300 && names.len() == n, "{n} names, {} of them different", names.len());
        let dangerous = "mount umount2 setns unshare bpf keyctl add_key kexec_load init_module open_by_handle_at io_uring_setup userfaultfd \
                         perf_event_open reboot swapon pivot_root clone3 socket socketpair socketcall ioctl pidfd_getfd move_mount fsopen";
        for bad in dangerous.split_ascii_whitespace() {
            assert!(!names.iter().any(|n| *n == bad), "{bad}");
        }
    }

    #[test]
    fn what_is_not_listed_is_eperm_and_what_libraries_must_fall_back_from_is_enosys() {
        let profile = profile_for("x86_64").unwrap();
        assert_eq!(decide(&profile, "mount", &[]), (LinuxSeccompAction::ScmpActErrno, Some(1)));
        for call in ["clone3", "socketcall"] {
            assert_eq!(decide(&profile, call, &[]), (LinuxSeccompAction::ScmpActErrno, Some(38)), "{call}");
        }
    }

    #[test]
    fn each_processor_has_its_calling_conventions_and_calls() {
        let x86 = profile_for("x86_64").unwrap();
        assert_eq!(x86.architectures().as_deref(), Some([Arch::ScmpArchX86_64, Arch::ScmpArchX86].as_slice()));
        let arm = profile_for("aarch64").unwrap();
        assert_eq!(arm.architectures().as_deref(), Some([Arch::ScmpArchAarch64, Arch::ScmpArchArm].as_slice()));
        let allowed = |p: &LinuxSeccomp, call: &str| decide(p, call, &[]).0 == LinuxSeccompAction::ScmpActAllow;
        assert!(allowed(&x86, "arch_prctl") && !allowed(&x86, "set_tls"));
        assert!(allowed(&arm, "set_tls") && !allowed(&arm, "arch_prctl"));
        assert_eq!(profile_for("riscv64").unwrap().architectures().as_deref(), Some([].as_slice()));
    }

    #[test]
    fn only_listed_personalities_and_clones_without_new_namespaces() {
        for persona in [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff, 1 << 32] {
            assert!(allows("personality", &[persona]), "{persona:x}");
        }
        // ADDR_NO_RANDOMIZE, READ_IMPLIES_EXEC.
        for persona in [0x4_0000, 0x40_0000, 1 << 32 | 0x4_0000] {
            assert!(!allows("personality", &[persona]), "{persona:x}");
        }
        assert!(allows("clone", &[0x0001_1200]));
        for flag in [0x2_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
            assert!(!allows("clone", &[0x11 | flag]), "{flag:x}");
        }
    }

    proptest! {
        #[test]
        fn only_five_families_of_sockets(family in prop_oneof![0u64..50, any::<u64>()]) {
            let listed = [1, 2, 10, 16, 17].contains(&(family & 0xffff_ffff));
            prop_assert_eq!(allows("socket", &[family, 1, 0]), listed);
            prop_assert_eq!(allows("socketpair", &[family, 1, 0]), listed);
        }

        #[test]
        fn every_ioctl_but_two_that_reach_subvolumes_of_others(request in any::<u64>(), high in any::<u32>(), bit in 0..32u32, other in 0..32u32) {
            // SNAP_DESTROY_V2 and GET_SUBVOL_ROOTREF.
            let refused = [0x5000_943f, 0xd000_943d];
            for one in refused {
                let call = u64::from(high) << 32 | one;
                prop_assert!(!allows("ioctl", &[3, call, 0]));
                let near = [call ^ 1 << bit, call ^ 1 << bit ^ 1 << other];
                for near in near {
                    prop_assert_eq!(allows("ioctl", &[3, near, 0]), !refused.contains(&(near & 0xffff_ffff)), "{:x}", near);
                }
            }
            prop_assert_eq!(allows("ioctl", &[3, request, 0]), !refused.contains(&(request & 0xffff_ffff)));
        }
    }
}
