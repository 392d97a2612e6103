export PATH=/work/main/node_modules/.bin:$PATH
for i in 1 2 3 4; do for t in cmp tree; do cd /tmp/service/$t; ip netns add svx5; echo -n "$t "; ip netns exec svx5 node exp.ts 30000 3 fill 2>&1 | tr '\n' ' '; echo; ip netns del svx5; done; done
