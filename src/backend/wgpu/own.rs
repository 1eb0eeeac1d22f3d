//! What a user's WGSL says of itself: its group, its workgroup memory, what it binds. Our own sources state these in their table.

use wgpu::naga::front::wgsl;
use wgpu::naga::valid::{Capabilities, ValidationFlags, Validator};
use wgpu::naga::{AddressSpace, EntryPoint, Module};

use crate::error::{Error, Result};
use crate::plan::{Dispatch, Plan};

/// The plan with the group and the workgroup memory that its text states.
///
/// # Errors
/// [`Error::Compile`], with lines and columns of the text, where it is not valid WGSL, has no such entry or binds other tensors.
pub(super) fn completed(plan: &Plan, text: &str) -> Result<Plan> {
    let named = format!("{}/{}", plan.op, plan.variant);
    let wrong = |log: String| Error::Compile { kernel: format!("{named} (WGSL)"), log };
    let module = parsed(text, plan.variant.trim_start_matches("try:")).map_err(wrong)?;
    let complete = |dispatch: &Dispatch| {
        let entry = entry(&module, &dispatch.entry).map_err(wrong)?;
        bound(plan, &module).map_err(wrong)?;
        Ok(Dispatch { block: entry.workgroup_size, shared_bytes: workgroup_bytes(&module), ..dispatch.clone() })
    };
    Ok(Plan { dispatches: plan.dispatches.iter().map(complete).collect::<Result<_>>()?, ..plan.clone() })
}

/// The group that an entry of a text states; none where the text cannot be read or has no such entry.
pub(in crate::backend) fn stated_group(text: &str, name: &str) -> Option<[u32; 3]> {
    let module = wgsl::parse_str(text).ok()?;
    entry(&module, name).ok().map(|entry| entry.workgroup_size)
}

/// Reads and validates a text. What a device lacks, it says itself.
fn parsed(text: &str, file: &str) -> Result<Module, String> {
    let module = wgsl::parse_str(text).map_err(|e| e.emit_to_string_with_path(text, file))?;
    let checked = Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module);
    checked.map(|_| module).map_err(|e| e.emit_to_string_with_path(text, file))
}

fn entry<'m>(module: &'m Module, name: &str) -> Result<&'m EntryPoint, String> {
    module.entry_points.iter().find(|point| point.name == name).ok_or_else(|| {
        let known: Vec<_> = module.entry_points.iter().map(|point| point.name.as_str()).collect();
        match known.as_slice() {
            [] => "it has no entry point; mark a function with @compute".into(),
            known => format!("it has no entry point '{name}'; name one of {} with --entry", known.join(", ")),
        }
    })
}

/// Demands that every tensor is bound, and nothing else but `Dims`.
fn bound(plan: &Plan, module: &Module) -> Result<(), String> {
    let bindings: Vec<_> = module.global_variables.iter().filter_map(|(_, variable)| variable.binding).collect();
    let list: Vec<_> = plan.tensors.iter().enumerate().map(|(t, tensor)| format!("@binding({t}) {}", tensor.name)).collect();
    let list = format!("{} has {} tensors at @group(0), {}, and Dims at @group(1) @binding(0)", plan.op, list.len(), list.join(", "));
    let known = |group: u32, binding: u32| group == 0 && (binding as usize) < plan.tensors.len() || (group, binding) == (1, 0);
    if let Some(odd) = bindings.iter().find(|b| !known(b.group, b.binding)) {
        return Err(format!("it binds @group({}) @binding({}), and {list}", odd.group, odd.binding));
    }
    let missing = (0..plan.tensors.len()).find(|&t| !bindings.iter().any(|b| (b.group, b.binding as usize) == (0, t)));
    missing.map_or(Ok(()), |t| Err(format!("it does not bind tensor {}, and {list}", plan.tensors[t].name)))
}

/// Workgroup memory that a module declares, in bytes.
fn workgroup_bytes(module: &Module) -> u32 {
    let workgroup = module.global_variables.iter().filter(|(_, variable)| variable.space == AddressSpace::WorkGroup);
    workgroup.map(|(_, variable)| module.types[variable.ty].inner.size(module.to_ctx())).fold(0, u32::saturating_add)
}
