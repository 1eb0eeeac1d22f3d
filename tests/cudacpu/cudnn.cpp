// libcudnn: the forward convolution of its older interface, NHWC, by the two implicit products.
#include "libraries.h"

namespace {

struct Dnn {
    void* stream = nullptr;
};
struct Tensor {
    Type type;
    int n, c, h, w;
};
struct Filter {
    Type type;
    int k, c, h, w;
};
struct Convolution {
    int padding, stride, dilation, groups = 1;
    unsigned math = 0;
};

bool type_of(unsigned number, Type* type) {
    // cudnnDataType_t in cudnn_graph.h.
    if (number == 0) return *type = F32, true;
    if (number == 2) return *type = F16, true;
    if (number == 9) return *type = BF16, true;
    return false;
}

int outputs(int input, int taps, const Convolution& conv) {
    return (input + 2 * conv.padding - ((taps - 1) * conv.dilation + 1)) / conv.stride + 1;
}

// The statuses that a description can earn before anything runs.
int check(const Tensor& x, const Filter& f, const Convolution& conv, const Tensor& y, unsigned algorithm) {
    if (x.c != f.c * conv.groups || f.k % conv.groups || y.c != f.k || y.n != x.n) return BAD_PARAM;
    if (y.h != outputs(x.h, f.h, conv) || y.w != outputs(x.w, f.w, conv)) return BAD_PARAM;
    if (x.type != f.type || x.type != y.type || algorithm > 1) return BAD_PARAM;
    // CUDNN_TENSOR_OP_MATH for narrow types; for f32 CUDNN_FMA_MATH, or CUDNN_DEFAULT_MATH, which means tf32.
    if (x.type == F32 ? conv.math != 3 && conv.math != 0 : conv.math != 1) return BAD_PARAM;
    if (set_to("CUDACPU_REFUSES", "all")) return DNN_NOT_SUPPORTED;
    if (set_to("CUDACPU_REFUSES", "precomputed") && algorithm == 1) return DNN_NOT_SUPPORTED;
    return OK;
}
void convolve(const Tensor& in, const void* x, const Filter& filter, const void* f, const Convolution& conv, const Tensor& out, void* y) {
    const bool tf32 = in.type == F32 && conv.math == 0;
    // The filters of a library that reads them with rows and columns exchanged.
    const bool turned = set_to("CUDACPU_MISTAKE", "turned") && filter.h == filter.w, unpadded = set_to("CUDACPU_MISTAKE", "unpadded");
    const int each = filter.k / conv.groups;
    size_t at = 0;
    for (int image = 0; image < out.n; image++) for (int i = 0; i < out.h; i++) for (int j = 0; j < out.w; j++) {
        for (int k = 0; k < out.c; k++, at++) {
            float sum = 0;
            for (int r = 0; r < filter.h; r++) for (int s = 0; s < filter.w; s++) {
                int h = i * conv.stride + r * conv.dilation - conv.padding, w = j * conv.stride + s * conv.dilation - conv.padding;
                // The edge's pixels in place of zeros.
                if (unpadded) h = h < 0 ? 0 : h >= in.h ? in.h - 1 : h, w = w < 0 ? 0 : w >= in.w ? in.w - 1 : w;
                if (h < 0 || h >= in.h || w < 0 || w >= in.w) continue;
                for (int c = 0; c < filter.c; c++) {
                    const size_t tap = turned ? s * filter.w + r : r * filter.w + s;
                    const float a = loaded(x, ((size_t(image) * in.h + h) * in.w + w) * in.c + k / each * filter.c + c, in.type);
                    const float b = loaded(f, (size_t(k) * filter.h * filter.w + tap) * filter.c + c, in.type);
                    sum += factor(a, tf32) * factor(b, tf32);
                }
            }
            stored(y, at, sum, in.type);
        }
    }
}

} // namespace

extern "C" {

// CUDNN_STATUS_SUBLIBRARY_LOADING_FAILED: a part of it is not there.
int cudnnCreate(void** handle) { return set_to("CUDACPU_REFUSES", "start") ? 1008 : make<Dnn>(handle); }
int cudnnDestroy(void* handle) { return end<Dnn>(handle); }
size_t cudnnGetVersion() { return 91002; }
const char* cudnnGetErrorString(unsigned status) {
    return status == DNN_NOT_SUPPORTED ? "CUDNN_STATUS_NOT_SUPPORTED" : status == BAD_PARAM ? "CUDNN_STATUS_BAD_PARAM" : "CUDNN_STATUS_OTHER";
}
int cudnnSetStream(void* handle, void* stream) { return static_cast<Dnn*>(handle)->stream = stream, OK; }
int cudnnCreateTensorDescriptor(void** made) { return make<Tensor>(made); }
int cudnnSetTensor4dDescriptor(void* tensor, unsigned format, unsigned type, int n, int c, int h, int w) {
    Type known;
    if (format != 1 || !type_of(type, &known)) return BAD_PARAM;
    return *static_cast<Tensor*>(tensor) = {known, n, c, h, w}, OK;
}
int cudnnDestroyTensorDescriptor(void* tensor) { return end<Tensor>(tensor); }
int cudnnCreateFilterDescriptor(void** made) { return make<Filter>(made); }
int cudnnSetFilter4dDescriptor(void* filter, unsigned type, unsigned format, int k, int c, int h, int w) {
    Type known;
    if (format != 1 || !type_of(type, &known)) return BAD_PARAM;
    return *static_cast<Filter*>(filter) = {known, k, c, h, w}, OK;
}
int cudnnDestroyFilterDescriptor(void* filter) { return end<Filter>(filter); }
int cudnnCreateConvolutionDescriptor(void** made) { return make<Convolution>(made); }
int cudnnSetConvolution2dDescriptor(void* conv, int down, int across, int step_down, int step_across, int apart_down, int apart_across,
                                    unsigned mode, unsigned compute) {
    // CUDNN_CROSS_CORRELATION, sums in f32.
    if (down != across || step_down != step_across || apart_down != apart_across || mode != 1 || compute != 0) return BAD_PARAM;
    auto& set = *static_cast<Convolution*>(conv);
    return set.padding = down, set.stride = step_down, set.dilation = apart_down, OK;
}
int cudnnSetConvolutionMathType(void* conv, unsigned math) { return static_cast<Convolution*>(conv)->math = math, OK; }
int cudnnSetConvolutionGroupCount(void* conv, int groups) { return static_cast<Convolution*>(conv)->groups = groups, OK; }
int cudnnDestroyConvolutionDescriptor(void* conv) { return end<Convolution>(conv); }
int cudnnGetConvolutionForwardWorkspaceSize(void* handle, void* x, void* f, void* conv, void* y, unsigned algorithm, size_t* bytes) {
    if (!live.count(handle)) return BAD_PARAM;
    *bytes = algorithm == 1 ? 4096 : 0;
    return check(*static_cast<Tensor*>(x), *static_cast<Filter*>(f), *static_cast<Convolution*>(conv), *static_cast<Tensor*>(y), algorithm);
}
int cudnnConvolutionForward(void* handle, const float* alpha, void* of_x, const void* x, void* of_f, const void* f, void* of_conv,
                            unsigned algorithm, void* workspace, size_t bytes, const float* beta, void* of_y, void* y) {
    const Tensor in = *static_cast<Tensor*>(of_x), out = *static_cast<Tensor*>(of_y);
    const Filter filter = *static_cast<Filter*>(of_f);
    const Convolution conv = *static_cast<Convolution*>(of_conv);
    if (!live.count(handle) || !static_cast<Dnn*>(handle)->stream || !workspace || *alpha != 1 || *beta != 0) return BAD_PARAM;
    if (const int status = check(in, filter, conv, out, algorithm)) return status;
    memset(workspace, 0x5a, bytes < 4096 ? bytes : 4096);
    return put([=] { convolve(in, x, filter, f, conv, out, y); });
}

} // extern "C"
