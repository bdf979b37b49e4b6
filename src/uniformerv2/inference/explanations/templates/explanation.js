"use strict";
{
  document.documentElement.classList.add("scripted");
  const steps = Array.from(document.querySelectorAll(".steps li")), place = document.querySelector("#place");
  const plain = document.querySelector(".plain-frame"), map = document.querySelector(".map");
  const show = (number) => {
    const button = steps[number].querySelector("button");
    plain.src = button.dataset.plain;
    map.src = button.querySelector("img").src;
    place.value = number;
    document.querySelector("#readout").textContent = steps[number].querySelector(".words").textContent;
    steps.forEach((step, each) => step.querySelector("button").toggleAttribute("aria-current", each === number));
  };
  place.addEventListener("input", () => show(Number(place.value)));
  document.querySelector("#cover").addEventListener("input", (event) => { map.style.opacity = event.target.value / 100; });
  steps.forEach((step, number) => step.querySelector("button").addEventListener("click", () => show(number)));
  show(0);
}
