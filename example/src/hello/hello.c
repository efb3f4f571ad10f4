#include <greet.h>

int main(int count, char **arguments) {
    return greet(count > 1 ? arguments[1] : "world");
}
