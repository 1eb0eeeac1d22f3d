//! Whether a plan fits a device, before anything is made: wgpu checks some of this late, and workgroup memory not at all.

use super::device::{Device, STAGING};
use super::memory;
use crate::error::{Error, Result};
use crate::op::Role;
use crate::plan::{DeviceInfo, Dispatch, Plan};

/// Checks every limit that a plan meets.
///
/// # Errors
/// [`Error::Unsupported`] naming the first limit that does not suffice, [`Error::OutOfMemory`] past the memory budget.
pub(super) fn check(plan: &Plan, sets: u32, info: &DeviceInfo, device: &Device) -> Result<()> {
    let named = format!("{}/{}", plan.op, plan.variant);
    if let Some(feature) = plan.missing(info) {
        return Err(Error::unsupported(format!("{named} in {}", plan.precision), format!("the feature {feature}"), "none"));
    }
    let (mut set, mut scratch) = (0, 0);
    for tensor in plan.memory() {
        let binding = memory::padded(tensor);
        if binding > info.limits.binding_bytes {
            let what = format!("{named}: tensor {} of {:?}", tensor.name, tensor.shape);
            let have = format!("{} bytes at most", info.limits.binding_bytes);
            return Err(Error::unsupported(what, format!("{binding} bytes in one binding"), have));
        }
        let size = memory::allocated(tensor);
        let most = device.raw.limits().max_buffer_size;
        if size > most {
            let what = format!("{named}: tensor {} and its guards", tensor.name);
            return Err(Error::unsupported(what, format!("a buffer of {size} bytes"), format!("{most} bytes at most")));
        }
        *if tensor.role == Role::Scratch { &mut scratch } else { &mut set } += size;
    }
    let bindings = device.raw.limits().max_storage_buffers_per_shader_stage as usize;
    at_most(&named, "storage buffers", plan.memory().count() as u64, bindings as u64)?;
    plan.dispatches.iter().try_for_each(|dispatch| geometry(&named, dispatch, info, device))?;
    let need = set * sets.max(1) as u64 + scratch + STAGING;
    if need > info.memory_bytes {
        let what = format!("{named} with {sets} copies of its tensors");
        return Err(Error::OutOfMemory { what, need, have: info.memory_bytes });
    }
    Ok(())
}

fn geometry(named: &str, dispatch: &Dispatch, info: &DeviceInfo, device: &Device) -> Result<()> {
    let limits = device.raw.limits();
    for (axis, groups) in ["x", "y", "z"].iter().zip(dispatch.grid) {
        at_most(named, &format!("work-groups along {axis}"), groups as u64, info.limits.grid as u64)?;
    }
    let block = [limits.max_compute_workgroup_size_x, limits.max_compute_workgroup_size_y, limits.max_compute_workgroup_size_z];
    for ((axis, size), most) in ["x", "y", "z"].iter().zip(dispatch.block).zip(block) {
        at_most(named, &format!("invocations of a work-group along {axis}"), size as u64, most as u64)?;
    }
    let invocations = dispatch.block.iter().map(|&size| size as u64).product();
    at_most(named, "invocations of a work-group", invocations, info.limits.block as u64)?;
    at_most(named, "bytes of workgroup memory", dispatch.shared_bytes as u64, info.limits.shared_bytes as u64)
}

fn at_most(named: &str, what: &str, need: u64, have: u64) -> Result<()> {
    match need <= have {
        true => Ok(()),
        false => Err(Error::unsupported(named, format!("{need} {what}"), format!("{have} at most"))),
    }
}
