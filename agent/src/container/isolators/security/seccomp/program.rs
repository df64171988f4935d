//! From a table of verdicts to a program of the kernel's classic BPF: a search tree over the calls' numbers, which takes some ten
//! steps for each call, and as many for each number when the kernel works out which ones it need not ask about.
//!
//! Not here: which calls are allowed.

use libc::sock_filter as Instruction;

/// A processor, as the kernel tells filters which one a call is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Machine {
    X86_64,
    X86,
    Aarch64,
}

impl Machine {
    /// `AUDIT_ARCH_…` of `linux/audit.h`.
    pub(super) const fn audit_number(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
        }
    }
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    /// It fails with this errno.
    Refuse(i32),
    /// It is allowed if its first argument is such, and fails with EPERM otherwise.
    If(Condition),
}

/// On the lower half of the first argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// It has none of these bits.
    Without(u32),
    /// It lies in one of these ranges, ends included.
    Within(&'static [(u32, u32)]),
}

/// The verdicts for one machine. A call that has none fails: with EPERM up to `last`, beyond it with ENOSYS.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) machine: Machine,
    /// In the order of their numbers, each once.
    pub(super) calls: Vec<(u32, Verdict)>,
    pub(super) last: u32,
}

const LOAD: u16 = 0x20; // A = the word at k
const AND: u16 = 0x54; // A &= k
const JUMP: u16 = 0x05; // by k
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Where `struct seccomp_data` has the call's number, the machine, and the lower half of the first argument.
const NUMBER: u32 = 0;
const MACHINE: u32 = 4;
const ARGUMENT: u32 = 16;

const fn statement(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

const fn branch(code: u16, k: u32, yes: u8, no: u8) -> Instruction {
    Instruction { code, jt: yes, jf: no, k }
}

const fn refuse(errno: i32) -> Instruction {
    statement(RETURN, libc::SECCOMP_RET_ERRNO | errno.unsigned_abs())
}

/// A program that judges by the table of the machine that a call is made for. Calls for any other machine kill the process.
pub(super) fn compile(tables: &[Table]) -> Vec<Instruction> {
    let mut program = vec![statement(LOAD, MACHINE)];
    for table in tables {
        let mut body = vec![statement(LOAD, NUMBER)];
        tree(&ranges(table), &mut body);
        program.push(branch(JUMP_EQUAL, table.machine.audit_number(), 1, 0));
        program.push(statement(JUMP, distance(body.len())));
        program.append(&mut body);
    }
    program.push(statement(RETURN, libc::SECCOMP_RET_KILL_PROCESS));
    program
}

/// The kernel takes programs of at most 4096 instructions, so this is exact.
fn distance(instructions: usize) -> u32 {
    u32::try_from(instructions).unwrap_or(u32::MAX)
}

/// All numbers, as ranges of equal verdicts: where each begins, the first at 0.
fn ranges(table: &Table) -> Vec<(u32, Verdict)> {
    let mut ranges = Vec::with_capacity(table.calls.len());
    let mut next = 0;
    for (number, verdict) in &table.calls {
        if *number > next {
            without_verdict(next, number - 1, table.last, &mut ranges);
        }
        begin(*number, *verdict, &mut ranges);
        next = number + 1;
    }
    without_verdict(next, u32::MAX, table.last, &mut ranges);
    ranges
}

fn without_verdict(from: u32, to: u32, last: u32, ranges: &mut Vec<(u32, Verdict)>) {
    if from <= last {
        begin(from, Verdict::Refuse(libc::EPERM), ranges);
    }
    if to > last {
        begin(from.max(last + 1), Verdict::Refuse(libc::ENOSYS), ranges);
    }
}

fn begin(start: u32, verdict: Verdict, ranges: &mut Vec<(u32, Verdict)>) {
    if ranges.last().is_none_or(|(_, before)| *before != verdict) {
        ranges.push((start, verdict));
    }
}

/// Finds the range that the number in A lies in, and judges.
fn tree(ranges: &[(u32, Verdict)], program: &mut Vec<Instruction>) {
    if let [] | [_] = ranges {
        return ranges.iter().for_each(|(_, verdict)| leaf(*verdict, program));
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let pivot = high.first().map_or(0, |(start, _)| *start);
    let at = program.len();
    program.push(branch(JUMP_GREATER_EQUAL, pivot, 0, 1));
    tree(low, program);
    let over = program.len() - at - 1;
    match (u8::try_from(over), program.get_mut(at)) {
        (Ok(near), Some(head)) => *head = branch(JUMP_GREATER_EQUAL, pivot, near, 0),
        // A branch reaches 255 instructions ahead.
        _ => program.insert(at + 1, statement(JUMP, distance(over))),
    }
    tree(high, program);
}

fn leaf(verdict: Verdict, program: &mut Vec<Instruction>) {
    let allow = statement(RETURN, libc::SECCOMP_RET_ALLOW);
    match verdict {
        Verdict::Allow => program.push(allow),
        Verdict::Refuse(errno) => program.push(refuse(errno)),
        Verdict::If(Condition::Without(bits)) => program.extend([
            statement(LOAD, ARGUMENT),
            statement(AND, bits),
            branch(JUMP_EQUAL, 0, 0, 1),
            allow,
            refuse(libc::EPERM),
        ]),
        Verdict::If(Condition::Within(ranges)) => {
            program.push(statement(LOAD, ARGUMENT));
            for (from, to) in ranges {
                program.push(branch(JUMP_GREATER_EQUAL, *from, 0, 2));
                program.push(branch(JUMP_GREATER, *to, 1, 0));
                program.push(allow);
            }
            program.push(refuse(libc::EPERM));
        }
    }
}

/// What the kernel's interpreter would answer.
#[cfg(test)]
pub(super) fn run(program: &[Instruction], machine: u32, number: u32, argument: u32) -> u32 {
    let mut at = 0;
    let mut a = 0;
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let mut branch = |taken| at += usize::from(if taken { jt } else { jf });
        match code {
            LOAD => {
                a = [(NUMBER, number), (MACHINE, machine), (ARGUMENT, argument)]
                    .iter()
                    .find(|w| w.0 == k)
                    .unwrap()
                    .1
            }
            AND => a &= k,
            JUMP => at += usize::try_from(k).unwrap(),
            JUMP_EQUAL => branch(a == k),
            JUMP_GREATER => branch(a > k),
            JUMP_GREATER_EQUAL => branch(a >= k),
            RETURN => return k,
            _ => panic!("instruction {code:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RANGES: &[(u32, u32)] = &[(0, 0), (3, 5), (u32::MAX, u32::MAX)];

    fn verdict() -> impl Strategy<Value = Verdict> {
        prop_oneof![
            4 => Just(Verdict::Allow),
            1 => (1..100).prop_map(Verdict::Refuse),
            1 => any::<u32>().prop_map(|bits| Verdict::If(Condition::Without(bits))),
            1 => Just(Verdict::If(Condition::Within(RANGES))),
        ]
    }

    /// The table, read the slow way.
    fn model(table: &Table, number: u32, argument: u32) -> u32 {
        let refuse = |errno: i32| libc::SECCOMP_RET_ERRNO | errno.unsigned_abs();
        let found = table.calls.iter().find(|(known, _)| *known == number);
        let allowed = match found.map(|(_, verdict)| verdict) {
            None if number > table.last => return refuse(libc::ENOSYS),
            None => false,
            Some(Verdict::Allow) => true,
            Some(Verdict::Refuse(errno)) => return refuse(*errno),
            Some(Verdict::If(Condition::Without(bits))) => argument & bits == 0,
            Some(Verdict::If(Condition::Within(ranges))) => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&argument))
            }
        };
        if allowed { libc::SECCOMP_RET_ALLOW } else { refuse(libc::EPERM) }
    }

    proptest! {
        #[test]
        fn the_program_judges_as_the_table_does(
            calls in prop::collection::btree_map(0..600_u32, verdict(), 0..500),
            argument in prop_oneof![0..8_u32, any::<u32>()],
            far in any::<u32>(),
        ) {
            let tables = [
                Table { machine: Machine::X86, calls: Vec::new(), last: 7 },
                Table { machine: Machine::X86_64, calls: calls.into_iter().collect(), last: 467 },
            ];
            let program = compile(&tables);
            prop_assert!(program.len() < 4096);
            for table in &tables {
                for number in (0..620).chain([far, u32::MAX]) {
                    let told = run(&program, table.machine.audit_number(), number, argument);
                    prop_assert_eq!(told, model(table, number, argument), "call {}", number);
                }
            }
            let stranger = run(&program, Machine::Aarch64.audit_number(), 0, 0);
            prop_assert_eq!(stranger, libc::SECCOMP_RET_KILL_PROCESS);
        }
    }
}
