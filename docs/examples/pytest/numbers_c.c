/* cc -g -shared -fPIC $(python3-config --includes) numbers_c.c -o numbers_c$(python3-config --extension-suffix) */
#include <Python.h>
#include <stdlib.h>

static PyObject *last(PyObject *self, PyObject *arguments) {
    (void)self;
    long count;
    if (!PyArg_ParseTuple(arguments, "l", &count)) {
        return NULL;
    }
    long *numbers = calloc((size_t)count, sizeof *numbers);
    long value = numbers[count]; /* should be count - 1 */
    free(numbers);
    return PyLong_FromLong(value);
}

static PyMethodDef methods[] = {{"last", last, METH_VARARGS, "The last of COUNT numbers."}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "numbers_c", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_numbers_c(void) {
    return PyModule_Create(&module);
}
