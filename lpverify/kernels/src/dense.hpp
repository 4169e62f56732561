// Linear bounds of small dense ReLU networks, many subproblems at a time.
//
// The same calculus as lpverify/bounds (frame.py, propagate.py, linear.py), for graphs of affine nodes and
// ReLUs only: boxes by interval arithmetic, tightened by backward (CROWN) rows for the neurons that are
// still unstable, then rows for the forms of the query. All coefficients act on deviations from a reference
// run, so the error terms shrink with the box; every one is added up and subtracted.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace lpverify {

// A matrix `rows x cols` that maps the value of node `source` into an affine node.
struct Block {
    int source = 0, rows = 0, cols = 0;
    bool sparse = false;
    std::vector<double> dense;       // rows * cols, unless sparse
    std::vector<int> start, column;  // compressed rows, if sparse
    std::vector<double> value;
};

enum class Kind { input, affine, relu };

struct Node {
    Kind kind = Kind::input;
    int width = 0;
    std::vector<Block> blocks;             // of an affine node
    std::vector<double> bias, bias_error;  // the same
    double weight_error = 0.0;             // relative error of all its weights
    int source = -1;                       // of a ReLU
    int consumers = 0;
    int offset = -1;  // of operands of ReLUs: where their boxes are in a row of `known_*`
};

struct Graph {
    std::vector<Node> nodes;  // in topological order; the first is the input, the last the forms
    int neurons = 0;          // length of a row of `known_*`
};

// Arrays of one call, row-major, B subproblems each. Those that are not const are results.
struct Batch {
    int count = 0, inputs = 0, neurons = 0, rows = 0, splits = 0;
    const double *lower = nullptr, *upper = nullptr;         // (B, inputs) input boxes
    double *known_lower = nullptr, *known_upper = nullptr;   // (B, neurons) boxes of operands of ReLUs, tightened
    const std::int32_t* wanted = nullptr;                    // (B, rows) forms to bound, -1: none
    const std::int32_t* split = nullptr;                     // (B, splits) split neurons, -1: none
    const std::int8_t* side = nullptr;                       // (B, splits) +1: z >= 0, -1: z <= 0
    const double* goal = nullptr;                            // (B, rows) bounds beyond which a row needs no ascent
    float *alpha = nullptr, *beta = nullptr;                 // (B, rows, neurons), (B, rows, splits) multipliers
    int steps = 0;                                           // of ascent in them; 0: adaptive slopes
    int ahead = 0;                                           // splits that are tried before one is chosen
    int cuts = 0;                                            // the first so many splits give half-spaces
    bool refine = true;                                      // backward rows for unstable neurons
    double* value = nullptr;                                 // (B, rows) lower bounds of the forms
    double* loss = nullptr;                                  // (B, rows) what they lost to rounding
    double *slope = nullptr, *height = nullptr;              // (B, rows, inputs), (B, rows): form >= slope x + height
    double *split_slope = nullptr, *split_height = nullptr;  // the same: slope x + height <= 0 by the split
    double* input_score = nullptr;                           // (B, rows, inputs) gain expected of halving an input
    double* neuron_score = nullptr;                          // (B, rows) gain expected of the best neuron split
    std::int32_t* best_neuron = nullptr;                     // (B, rows) which one, -1: all are stable
    std::int32_t* unstable = nullptr;                        // (B) how many neurons are
    std::uint8_t* empty = nullptr;                           // (B) 1: proven to contain no point
    std::uint64_t* work = nullptr;                           // (2) backward rows and multiplications, added up
};

class Engine {
  public:
    virtual ~Engine() = default;
    virtual void bound(const Batch& batch, bool double_precision, int threads) const = 0;
};

std::unique_ptr<Engine> make_generic(const Graph& graph);
#if defined(LPVERIFY_X86)
std::unique_ptr<Engine> make_avx2(const Graph& graph);
std::unique_ptr<Engine> make_avx512(const Graph& graph);
#endif

}  // namespace lpverify
