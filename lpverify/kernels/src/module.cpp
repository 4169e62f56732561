// Python bindings: lpverify.kernels._dense.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include "dense.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace lpverify {

template <class T, int D>
using Input = nb::ndarray<const T, nb::ndim<D>, nb::c_contig, nb::device::cpu>;
template <class T, int D>
using Result = nb::ndarray<T, nb::ndim<D>, nb::c_contig, nb::device::cpu>;
using Doubles = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Integers = nb::ndarray<const std::int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names{"generic"};
#if defined(LPVERIFY_X86)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) names.push_back("avx2");
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        names.push_back("avx512");
#endif
    return names;
}

std::unique_ptr<Engine> make(const std::string& name, const Graph& graph) {
    bool known = false;
    for (const auto& set : instruction_sets()) known = known || set == name;
    if (!known) throw std::invalid_argument("this processor has no instruction set named " + name);
#if defined(LPVERIFY_X86)
    if (name == "avx2") return make_avx2(graph);
    if (name == "avx512") return make_avx512(graph);
#endif
    return make_generic(graph);
}

template <class A>
std::vector<std::remove_const_t<typename A::Scalar>> copy(const A& array) {
    return {array.data(), array.data() + array.size()};
}

// Builds the graph node by node, then bounds batches on it.
class DenseNetwork {
  public:
    explicit DenseNetwork(int inputs) {
        require(inputs > 0, "a network needs inputs");
        Node node;
        node.width = inputs;
        graph_.nodes.push_back(std::move(node));
    }

    int add_affine(Doubles bias, Doubles bias_error, double weight_error) {
        require(!engine_ && bias.size() > 0 && bias.size() == bias_error.size(), "bias and its error differ in size");
        require(weight_error >= 0, "errors are not negative");
        for (std::size_t i = 0; i < bias_error.size(); ++i)
            require(!(bias_error.data()[i] < 0), "errors are not negative");
        Node node;
        node.kind = Kind::affine, node.width = static_cast<int>(bias.size());
        node.bias = copy(bias), node.bias_error = copy(bias_error), node.weight_error = weight_error;
        return push(std::move(node));
    }

    // Adds a matrix to the last node.
    void add_dense(int source, Input<double, 2> weight) {
        Block block = new_block(source, static_cast<int>(weight.shape(0)), static_cast<int>(weight.shape(1)));
        block.dense.assign(weight.data(), weight.data() + weight.size());
        graph_.nodes.back().blocks.push_back(std::move(block));
    }

    void add_sparse(int source, int cols, Integers start, Integers column, Doubles value) {
        Block block = new_block(source, static_cast<int>(start.size()) - 1, cols);
        block.sparse = true;
        block.start = copy(start), block.column = copy(column), block.value = copy(value);
        require(block.start.front() == 0 && block.start.back() == static_cast<int>(block.value.size()), "bad rows");
        require(block.column.size() == block.value.size(), "columns and values differ in size");
        for (std::size_t i = 1; i < block.start.size(); ++i) require(block.start[i - 1] <= block.start[i], "bad rows");
        for (int j : block.column) require(j >= 0 && j < cols, "column out of range");
        graph_.nodes.back().blocks.push_back(std::move(block));
    }

    int add_relu(int source) {
        require(!engine_ && source > 0 && source < size(), "no such node");
        Node& below = graph_.nodes[static_cast<std::size_t>(source)];
        require(below.kind == Kind::affine, "a ReLU is applied to an affine node");
        ++below.consumers;
        if (below.offset < 0) below.offset = graph_.neurons, graph_.neurons += below.width;
        Node node;
        node.kind = Kind::relu, node.width = below.width, node.source = source;
        return push(std::move(node));
    }

    int offset(int node) const {
        require(node >= 0 && node < size(), "no such node");
        return graph_.nodes[static_cast<std::size_t>(node)].offset;
    }

    void finish(const std::string& set) {
        require(!engine_ && size() > 1 && graph_.nodes.back().kind == Kind::affine, "the last node must be affine");
        ++graph_.nodes.back().consumers;
        engine_ = make(set, graph_);
    }

    int neurons() const { return graph_.neurons; }

    void bound(Input<double, 2> lower, Input<double, 2> upper, Result<double, 2> known_lower,
               Result<double, 2> known_upper, Input<std::int32_t, 2> wanted, Input<std::int32_t, 2> split,
               Input<std::int8_t, 2> side, Input<double, 2> goal, Result<float, 3> alpha, Result<float, 3> beta,
               int steps, int ahead, int cuts, bool refine, Result<double, 2> value, Result<double, 2> loss,
               Result<double, 3> slope, Result<double, 2> height, Result<double, 3> split_slope,
               Result<double, 2> split_height, Result<double, 3> input_score, Result<double, 2> neuron_score,
               Result<std::int32_t, 2> best_neuron, Result<std::int32_t, 1> unstable, Result<std::uint8_t, 1> empty,
               Result<std::uint64_t, 1> work, bool double_precision, int threads) const {
        require(engine_ != nullptr && threads > 0, "the network is not finished");
        const std::size_t count = lower.shape(0), inputs = static_cast<std::size_t>(graph_.nodes[0].width);
        const std::size_t rows = wanted.shape(1), splits = split.shape(1);
        const std::size_t neurons = static_cast<std::size_t>(graph_.neurons);
        shape(lower, count, inputs), shape(upper, count, inputs), shape(wanted, count, rows);
        shape(known_lower, count, neurons), shape(known_upper, count, neurons);
        shape(split, count, splits), shape(side, count, splits), shape(split_height, count, splits);
        for (const auto* a : {&value, &loss, &height, &neuron_score}) shape(*a, count, rows);
        shape(best_neuron, count, rows), shape(slope, count, rows, inputs), shape(input_score, count, rows, inputs);
        shape(split_slope, count, splits, inputs), shape(goal, count, rows);
        require(steps >= 0, "steps are not negative");
        if (steps > 0) shape(alpha, count, rows, neurons), shape(beta, count, rows, splits);
        for (std::size_t i = 0; i < split.size(); ++i) require(split.data()[i] < graph_.neurons, "no such neuron");
        require(unstable.size() == count && empty.size() == count && work.size() == 2, "results of wrong size");
        for (std::size_t i = 0; i < lower.size(); ++i)
            require(lower.data()[i] <= upper.data()[i], "a box is empty or contains NaN");
        for (std::size_t i = 0; i < wanted.size(); ++i)
            require(wanted.data()[i] < graph_.nodes.back().width, "no such form");
        Batch batch;
        batch.count = static_cast<int>(count), batch.inputs = static_cast<int>(inputs);
        batch.neurons = graph_.neurons, batch.rows = static_cast<int>(rows), batch.splits = static_cast<int>(splits);
        batch.lower = lower.data(), batch.upper = upper.data();
        batch.known_lower = known_lower.data(), batch.known_upper = known_upper.data();
        batch.wanted = wanted.data(), batch.split = split.data(), batch.side = side.data();
        batch.goal = goal.data(), batch.alpha = alpha.data(), batch.beta = beta.data();
        batch.steps = steps, batch.ahead = ahead, batch.cuts = cuts, batch.refine = refine;
        batch.value = value.data(), batch.loss = loss.data(), batch.slope = slope.data(), batch.height = height.data();
        batch.split_slope = split_slope.data(), batch.split_height = split_height.data();
        batch.input_score = input_score.data(), batch.neuron_score = neuron_score.data();
        batch.best_neuron = best_neuron.data(), batch.unstable = unstable.data();
        batch.empty = empty.data(), batch.work = work.data();
        nb::gil_scoped_release release;
        engine_->bound(batch, double_precision, threads);
    }

  private:
    static void require(bool holds, const char* message) {
        if (!holds) throw std::invalid_argument(message);
    }

    template <class A>
    static void shape(const A& array, std::size_t a, std::size_t b, std::size_t c = 1) {
        const bool deep = array.ndim() == 3;
        require(array.shape(0) == a && array.shape(1) == b && (!deep || array.shape(2) == c), "array of wrong shape");
    }

    int size() const { return static_cast<int>(graph_.nodes.size()); }

    int push(Node node) {
        graph_.nodes.push_back(std::move(node));
        return size() - 1;
    }

    Block new_block(int source, int rows, int cols) {
        require(!engine_ && source >= 0 && source < size() - 1, "no such node");
        require(graph_.nodes.back().kind == Kind::affine && graph_.nodes.back().width == rows,
                "not as wide as the node");
        require(graph_.nodes[static_cast<std::size_t>(source)].width == cols, "not as wide as its operand");
        ++graph_.nodes[static_cast<std::size_t>(source)].consumers;
        Block block;
        block.source = source, block.rows = rows, block.cols = cols;
        return block;
    }

    Graph graph_;
    std::unique_ptr<Engine> engine_;
};

}  // namespace lpverify

// An array that is written to: never a converted copy, whose contents would be lost.
static auto result(const char* name) { return nb::arg(name).noconvert(); }

NB_MODULE(_dense, m) {
    using lpverify::DenseNetwork;
    m.def("instruction_sets", &lpverify::instruction_sets);
    nb::class_<DenseNetwork>(m, "DenseNetwork")
        .def(nb::init<int>(), "inputs"_a)
        .def("add_affine", &DenseNetwork::add_affine, "bias"_a, "bias_error"_a, "weight_error"_a)
        .def("add_dense", &DenseNetwork::add_dense, "source"_a, "weight"_a)
        .def("add_sparse", &DenseNetwork::add_sparse, "source"_a, "cols"_a, "start"_a, "column"_a, "value"_a)
        .def("add_relu", &DenseNetwork::add_relu, "source"_a)
        .def("offset", &DenseNetwork::offset, "node"_a)
        .def("finish", &DenseNetwork::finish, "instruction_set"_a)
        .def_prop_ro("neurons", &DenseNetwork::neurons)
        .def("bound", &DenseNetwork::bound, "lower"_a, "upper"_a, result("known_lower"), result("known_upper"),
             "wanted"_a, "split"_a, "side"_a, "goal"_a, result("alpha"), result("beta"), "steps"_a, "ahead"_a, "cuts"_a,
             "refine"_a, result("value"), result("loss"), result("slope"), result("height"), result("split_slope"),
             result("split_height"), result("input_score"), result("neuron_score"), result("best_neuron"),
             result("unstable"), result("empty"), result("work"), "double_precision"_a, "threads"_a);
}
