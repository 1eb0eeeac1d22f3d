//! Tensor maps: what the unit that copies boxes is told of a tensor.

use cudarc::driver::sys::{
    self, CUdeviceptr, CUtensorMap, CUtensorMapDataType as DataType, CUtensorMapFloatOOBfill as Fill, CUtensorMapInterleave as Interleave,
    CUtensorMapL2promotion as Promotion, CUtensorMapSwizzle as Swizzle,
};

use super::{failed, probe};
use crate::error::{Error, Result};
use crate::op::{DType, TensorSpec};
use crate::plan::{Arg, Dispatch};

/// The maps of one launch on one set of tensors, in the order of its arguments.
///
/// # Errors
/// [`Error::Unsupported`] where a tensor cannot be copied in boxes, or the driver's own.
pub fn maps(dispatch: &Dispatch, tensors: &[TensorSpec], places: &[CUdeviceptr]) -> Result<Vec<CUtensorMap>> {
    let of = |arg: &Arg| match *arg {
        Arg::Map { tensor, rows, columns } => Some(map(&tensors[tensor], places[tensor], [columns, rows])),
        _ => None,
    };
    dispatch.args.iter().filter_map(of).collect()
}

/// A matrix at `place`, with its boxes, columns first.
fn map(spec: &TensorSpec, place: CUdeviceptr, boxes: [u32; 2]) -> Result<CUtensorMap> {
    let kind = match spec.dtype {
        DType::F16 => DataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        DType::BF16 => DataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        DType::F32 => DataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
        DType::F64 => DataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT64,
        DType::U32 => DataType::CU_TENSOR_MAP_DATA_TYPE_UINT32,
        // Boxes are copied, not computed with, and it has neither signed bytes nor E4M3.
        DType::I8 | DType::F8 => DataType::CU_TENSOR_MAP_DATA_TYPE_UINT8,
        DType::I32 => DataType::CU_TENSOR_MAP_DATA_TYPE_INT32,
    };
    let columns = spec.shape.last().copied().unwrap_or(1);
    let (extents, line) = ([columns, spec.elements() / columns], [columns * spec.dtype.bytes()]);
    if line[0] % 16 != 0 || boxes[0] as u64 * spec.dtype.bytes() != 128 {
        let what = format!("tensor {}: a row of {} bytes in boxes of {} columns", spec.name, line[0], boxes[0]);
        return Err(Error::unsupported(what, "rows of whole 16 bytes, boxes of 128", line[0]));
    }
    let mut made = CUtensorMap { opaque: [0; 16] };
    probe::running(|| {
        // SAFETY: all pointers are to live arrays of two numbers, of which one stride is read; the driver only computes with the
        // address, which is that of the tensor for as long as its launches last.
        unsafe {
            sys::cuTensorMapEncodeTiled(
                &mut made,
                kind,
                2,
                place as *mut std::ffi::c_void,
                extents.as_ptr(),
                line.as_ptr(),
                boxes.as_ptr(),
                [1u32, 1].as_ptr(),
                Interleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                Swizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                Promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                Fill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        }
        .result()
        .map_err(|e| failed(&format!("making a map of tensor {}", spec.name), e))
    })?;
    Ok(made)
}
